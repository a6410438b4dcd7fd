"""Loads the compiled extension, and says clearly what is wrong when it can't."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

# The extension resolves OpenMP's symbols against the run-time library that torch brings, so torch comes first.
import torch  # noqa: F401

from bertfast._version import __version__


def _load() -> ModuleType:
    try:
        module = importlib.import_module("bertfast._bertfast")
    except ModuleNotFoundError:
        raise ImportError(
            f"bertfast's compiled extension is not installed for Python {sys.version_info.major}."
            f"{sys.version_info.minor} ({sys.executable}). Run `pip install .` in the folder that holds "
            "bertfast's pyproject.toml."
        ) from None
    if module.__version__ != __version__:
        raise ImportError(
            f"bertfast's Python files ({Path(__file__).parent}, version {__version__}) and its compiled extension "
            f"({module.__file__}, version {module.__version__}) differ. Run `pip install .` again."
        )
    return module


native = _load()
