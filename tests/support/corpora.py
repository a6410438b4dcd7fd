"""What a corpus holds, and a cache's folder of corpora."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from bertfast.data.corpus import Corpus


def documents(corpus: Corpus) -> list[list[list[str]]]:
    """All tokens, by document and sentence."""
    tokens = corpus.tokenizer.tokens(corpus.tokens.tolist())
    sentences = [tokens[a:b] for a, b in pairwise(corpus.sentence_offsets.tolist())]
    return [sentences[a:b] for a, b in pairwise(corpus.document_offsets.tolist())]


def without_locks(folder: Path) -> set[str]:
    """The names in a folder, but for those of lock files."""
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}
