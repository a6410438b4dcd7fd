"""The versions of packages, for a set of figures."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of the packages that are installed."""
    installed = {each.name: each.version for each in importlib.metadata.distributions()}
    return {package: installed[package] for package in packages if package in installed}
