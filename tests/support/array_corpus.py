"""Corpora made of lists, and the configurations that a sampler is tried with."""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import Any, NamedTuple

import numpy as np

from bertfast.config import SamplerConfig
from bertfast.errors import InputError


class Special(NamedTuple):
    pad: int = 0
    unk: int = 1
    cls: int = 2
    sep: int = 3
    mask: int = 4


# Ids that are neither in order nor side by side, as in BERT's own vocabulary.
SCATTERED = Special(pad=0, unk=9, cls=4, sep=7, mask=8)


@dataclasses.dataclass
class Corpus:
    tokens: Any
    sentence_offsets: Any
    document_offsets: Any
    vocab_size: int
    special_ids: Special
    continuation: Any

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def token_counts(self) -> Any:
        return np.bincount(self.tokens, minlength=self.vocab_size)


def make_corpus(
    documents: list[list[list[int]]],
    vocab_size: int,
    special: Special = SCATTERED,
    continuation: frozenset[int] = frozenset(),
    dtype: type = np.uint16,
) -> Corpus:
    sentences = [sentence for document in documents for sentence in document]
    return Corpus(
        np.array([token for sentence in sentences for token in sentence], dtype),
        np.cumsum([0, *map(len, sentences)], dtype=np.int64),
        np.cumsum([0, *map(len, documents)], dtype=np.int64),
        vocab_size,
        special,
        np.isin(np.arange(vocab_size), list(continuation)),
    )


VOCABULARY = 50
CONTINUATION = frozenset(range(25, 50))


def some_documents(seed: int) -> list[list[list[int]]]:
    """Documents of one sentence, sentences of one token and of more than max_len are among them."""
    rng = random.Random(seed)
    return [
        [
            [rng.randrange(VOCABULARY) for _ in range(rng.choice([1, 2, 5, 9, 14, 90]))]
            for _ in range(rng.choice([1, 1, 2, 5, 9]))
        ]
        for _ in range(30)
    ]


def possible(**settings: Any) -> SamplerConfig | None:
    try:
        return SamplerConfig(**settings)
    except InputError:
        return None


CONFIGS = [
    config
    for objective, negatives, too_long, segments, masking, max_len in itertools.product(
        ["nsp", "sop", "none"],
        ["other", "any"],
        ["truncate", "drop"],
        ["sentence", "fill"],
        ["token", "whole_word", "span"],
        [5, 12, 64],
    )
    if (
        config := possible(
            objective=objective,
            negatives=negatives,
            too_long=too_long,
            segments=segments,
            masking=masking,
            max_len=max_len,
            seed=2**40 + max_len,
        )
    )
    and not (objective != "nsp" and negatives == "any")
]


def name(config: SamplerConfig) -> str:
    words = [config.objective, config.negatives, config.too_long, config.segments, config.masking, str(config.max_len)]
    return "-".join(words)
