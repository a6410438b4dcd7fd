"""The notebook's own code, PyPI's `d2l`, imported without what it doesn't need."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

# What d2l imports at its top and "Pretraining BERT" never touches. Each is stubbed where it is absent.
UNUSED = (
    "torchvision",
    "torchvision.transforms",
    "pandas",
    "requests",
    "IPython",
    "IPython.display",
    "matplotlib_inline",
    "matplotlib_inline.backend_inline",
)


def load_d2l() -> Any:
    """`d2l.torch`. Raises ImportError where d2l is not installed."""
    stubs = []
    for name in UNUSED:
        try:
            importlib.import_module(name)
        except ImportError:
            stub = sys.modules[name] = ModuleType(name)
            stubs.append(name)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, stub)
    try:
        return importlib.import_module("d2l.torch")
    except ImportError:
        raise ImportError("needs the notebook's code: pip install --no-deps d2l==1.0.3") from None
    finally:
        for name in stubs:  # others, transformers say, look whether these are installed
            del sys.modules[name]
