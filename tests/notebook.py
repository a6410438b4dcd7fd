"""The notebook's own code: PyPI's `d2l` (install it with `--no-deps`): the tests' oracle, the benchmarks' baseline."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

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


def import_d2l() -> Any:
    """`d2l.torch`; skips the test where d2l is not installed."""
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
        return pytest.importorskip("d2l.torch", reason="needs the notebook's code: pip install --no-deps d2l==1.0.3")
    finally:
        for name in stubs:  # others, transformers say, look whether these are installed
            del sys.modules[name]


def wikitext_folder() -> Path:
    """The folder with WikiText-2's valid.txt and test.txt; skips the test where there is none."""
    default = Path(__file__).parent.parent.parent / "shared" / "data" / "wikitext-2"
    folder = Path(os.environ.get("BERTFAST_WIKITEXT", default))
    if not (folder / "valid.txt").exists():
        pytest.skip("needs WikiText-2: set BERTFAST_WIKITEXT to a folder with its valid.txt and test.txt")
    return folder


def notebook_paragraphs() -> list[list[str]]:
    """What the notebook reads from WikiText-2's validation and test text: paragraphs of sentences."""
    with tempfile.TemporaryDirectory() as folder:
        text = "".join((wikitext_folder() / name).read_text(encoding="utf-8") for name in ("test.txt", "valid.txt"))
        (Path(folder) / "wiki.train.tokens").write_text(text, encoding="utf-8")
        return import_d2l()._read_wiki(folder)


def notebook_dataset(max_len: int) -> Any:
    """The notebook's data set of it: padded once, with a vocabulary."""
    return import_d2l()._WikiTextDataset(notebook_paragraphs(), max_len)
