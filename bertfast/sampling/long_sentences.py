"""Divides sentences that are too long for an example, so that every token can be in one.

The end of a sentence is lost if every pair with that sentence cuts it off. Such a sentence is divided into pieces of
almost equal length, which are then treated as sentences. A piece has at most `max_len - 2` tokens for single segments,
and at most half of `max_len - 3` for pairs, so that two fit. `too_long="drop"`, the notebook's way, divides none.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bertfast.config import SamplerConfig

Offsets = npt.NDArray[np.int64]

# If a larger share of the tokens is in no example, the log has a warning.
MOST_UNREACHED = 0.05

_AT_A_TIME = 1 << 20
_NONE = 1 << 60  # as the length of a missing sentence


class Sentences(NamedTuple):
    """A corpus's sentences and documents, as in `bertfast.data.corpus.Corpus`."""

    sentence_offsets: Offsets
    document_offsets: Offsets


def divided(sentences: Sentences, config: SamplerConfig) -> Sentences:
    """The same tokens in sentences that lose no end; `sentences` itself if none has to be divided."""
    if config.too_long == "drop":
        return sentences
    offsets, documents = sentences
    most = _max_piece(config)
    count = len(offsets) - 1
    pieces = np.ones(count, np.int64)
    shortest = _shortest_elsewhere(sentences, config)
    for begin in range(0, count, _AT_A_TIME):
        lengths = np.diff(offsets[begin : begin + _AT_A_TIME + 1])
        numbers = begin + np.flatnonzero(lengths > most)
        numbers = numbers[_reached(sentences, config, numbers, shortest) < lengths[numbers - begin]]
        pieces[numbers] = -(-lengths[numbers - begin] // most)
    ends = np.concatenate([[0], pieces.cumsum()])
    if ends[-1] == count:
        return sentences
    whole = np.repeat(np.arange(count), pieces)
    number = np.arange(ends[-1]) - ends[whole]
    begins = offsets[whole] + (offsets[whole + 1] - offsets[whole]) * number // pieces[whole]
    return Sentences(np.append(begins, offsets[-1]), ends[documents])


def unreached(sentences: Sentences, config: SamplerConfig) -> float:
    """The share of the tokens that are in no example."""
    offsets = sentences.sentence_offsets
    shortest = _shortest_elsewhere(sentences, config)
    reached = 0
    for begin in range(0, len(offsets) - 1, _AT_A_TIME):
        numbers = np.arange(begin, min(begin + _AT_A_TIME, len(offsets) - 1))
        reached += int(_reached(sentences, config, numbers, shortest).sum())
    return 1 - reached / int(offsets[-1])


def _max_piece(config: SamplerConfig) -> int:
    """The maximum tokens of a piece."""
    return config.max_len - 2 if config.objective == "none" else (config.max_len - 3) // 2


def _reached(
    sentences: Sentences, config: SamplerConfig, numbers: Offsets, shortest_elsewhere: Offsets
) -> npt.NDArray[np.int64]:
    """For each of the sentences `numbers`, how many of its first tokens are in some example."""
    offsets, documents = sentences
    lengths = offsets[numbers + 1] - offsets[numbers]
    reached: npt.NDArray[np.int64]
    if config.objective == "none":
        reached = np.minimum(lengths, config.max_len - 2)
        return reached
    document = np.searchsorted(documents, numbers, side="right") - 1
    before = np.where(numbers > documents[document], offsets[numbers] - offsets[np.maximum(numbers - 1, 0)], _NONE)
    following = np.minimum(numbers + 2, len(offsets) - 1)
    after = np.where(numbers + 1 < documents[document + 1], offsets[following] - offsets[numbers + 1], _NONE)
    partner = np.minimum(np.minimum(before, after), shortest_elsewhere[document])
    budget = config.max_len - 3
    # The tokens that the best pair keeps: the longer of its sentences is truncated first.
    kept = 0 if config.too_long == "drop" else np.minimum(lengths, np.maximum(budget - partner, budget // 2))
    reached = np.where(lengths + partner <= budget, lengths, kept)
    reached[partner == _NONE] = 0
    return reached


def _shortest_elsewhere(sentences: Sentences, config: SamplerConfig) -> Offsets:
    """(documents,): of the first sentences that a sentence of the document can follow as a wrong next sentence, the
    length of the shortest."""
    offsets, documents = sentences
    if config.objective != "nsp":
        return np.full(len(documents) - 1, _NONE)
    lengths = np.diff(offsets)
    firsts = lengths.copy()
    firsts[documents[1:] - 1] = _NONE  # a document's last sentence begins no pair
    if config.too_long == "drop":
        firsts[:-1][lengths[:-1] + lengths[1:] > config.max_len - 3] = _NONE
    shortest = np.minimum.reduceat(firsts, documents[:-1])
    if config.negatives == "any":
        return np.full(len(shortest), shortest.min())
    at = int(shortest.argmin())
    elsewhere = np.full(len(shortest), shortest[at])
    elsewhere[at] = np.delete(shortest, at).min(initial=_NONE)
    return elsewhere
