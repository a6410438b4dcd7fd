"""The text that all contenders learn from, and the held-out text that they are evaluated on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from bertfast.config import CorpusConfig
from bertfast.data.corpus import Corpus
from bertfast.data.load import load_corpus

TRAIN, HELD_OUT = "train.txt.gz", "heldout.txt.gz"
VOCAB_SIZE = 8192


class Texts(NamedTuple):
    train: Corpus
    held_out: Corpus


def load_texts(folder: Path, cache: Path | None = None) -> Texts:
    """Both texts of a folder, in the form `lines`, with a WordPiece tokenizer trained on the first."""
    config = CorpusConfig(tokenizer="wordpiece", vocab_size=VOCAB_SIZE, text_form="lines")
    train = load_corpus(folder / TRAIN, config=config, cache_dir=cache)
    held_out = load_corpus(folder / HELD_OUT, tokenizer=train.folder, config=config, cache_dir=cache)
    return Texts(train, held_out)
