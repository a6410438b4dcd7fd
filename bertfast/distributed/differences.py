"""How two descriptions of a run differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for each entry that changed."""
    names = dict.fromkeys((*before, *now))
    return [
        f"{name}: {before.get(name, 'unknown')} -> {now.get(name, 'unknown')}"
        for name in names
        if before.get(name, "unknown") != now.get(name, "unknown")
    ]
