"""A corpus, and a model to train on it, for checks that need no text."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from bertfast.config import BertConfig
from bertfast.data.tokenizing.special_tokens import SpecialTokens
from bertfast.model import Bert

WORDS = 2000
_SPECIAL = 5


class MadeUpCorpus:
    """Random documents of sentences of tokens; a TokenisedCorpus."""

    vocab_size = WORDS
    special_ids = SpecialTokens(*range(_SPECIAL))

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        lengths = generator.integers(3, 60, 3000)
        ends = np.unique(generator.integers(1, len(lengths), 500))
        self.sentence_offsets: npt.NDArray[np.int64] = np.concatenate([[0], lengths.cumsum()]).astype(np.int64)
        self.document_offsets: npt.NDArray[np.int64] = np.concatenate([[0], ends, [len(lengths)]]).astype(np.int64)
        self.tokens = generator.integers(_SPECIAL, WORDS, int(lengths.sum())).astype(np.uint16)
        self.continuation = generator.random(WORDS) < 0.3
        self.continuation[:_SPECIAL] = False


def made_up_model(device: torch.device) -> Bert:
    """The notebook's model with a smaller vocabulary, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Bert(BertConfig(vocab_size=WORDS)).to(device).train()
