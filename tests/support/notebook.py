"""The notebook's own code: PyPI's `d2l` (install it with `--no-deps`): the tests' oracle, the benchmarks' baseline."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from support.d2l_code import load_d2l


def import_d2l() -> Any:
    """`d2l.torch`; skips the test where d2l is not installed."""
    try:
        return load_d2l()
    except ImportError as error:
        pytest.skip(str(error))


def wikitext_folder() -> Path:
    """The folder with WikiText-2's valid.txt and test.txt; skips the test where there is none."""
    default = Path(__file__).parents[3] / "shared" / "data" / "wikitext-2"
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
