"""Text to a corpus on the disk, vocabulary included, beside the tokenizers library's encoding alone."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from notebook import wikitext_folder

from bertfast.corpus import load_corpus
from bertfast.text import TextFile, sentences

REPEATS = 4  # of WikiText-2's validation and test text: 9.5 MB


@pytest.mark.parametrize("kind", ["word", "wordpiece"])
def test_corpus(compare: Any, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "wiki.train.tokens"
    path.write_bytes(b"".join((wikitext_folder() / name).read_bytes() for name in ("valid.txt", "test.txt")) * REPEATS)
    texts = [sentence for sentence in sentences(TextFile(path, "wikitext")) if sentence]
    backend = load_corpus(path, tokenizer=kind, cache_dir=tmp_path / "first", progress=False).tokenizer.backend
    caches = (tmp_path / f"cache-{i}" for i in itertools.count())

    def build() -> None:
        load_corpus(path, tokenizer=kind, cache_dir=next(caches), progress=False)

    def encode() -> None:
        backend.encode_batch_fast(texts, add_special_tokens=False)

    compare(
        f"a {kind} corpus of {path.stat().st_size / 1e6:.1f} MB",
        build,
        {"encode_batch_fast alone": encode},
        rounds=5,
        items=path.stat().st_size,
        unit="B",
    )
