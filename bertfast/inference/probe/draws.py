"""Chooses the texts that a probe of labels learns from, and those that it tests on."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bertfast.config import ProbeConfig
from bertfast.data.readers.labelled import Labelled
from bertfast.errors import InputError
from bertfast.inference.probe.features import SEED, words

logger = logging.getLogger(__name__)

Indices = npt.NDArray[Any]

# Without a test, one in this many of the labelled texts is held out for it.
_HELD_OUT = 5


def train_and_test(train: Labelled, test: Labelled | None = None) -> tuple[Labelled, Labelled]:
    """The texts to learn from and those to test on, without texts that have no words.

    `test`: None for a fifth of `train`. Raises InputError for too few texts, for a single label, and for a label that
    only `test` has.
    """
    train = _with_words(train, "labelled")
    if test is None:
        train, test = _hold_out(train)
    else:
        test = _with_words(test, "test")
    _check(train, test)
    return train, test


class Drawn(NamedTuple):
    """Texts to learn from, drawn several times, and texts to test on."""

    train: Labelled
    """The texts that are in any draw."""
    test: Labelled
    draws: dict[int, list[Indices]]
    """For each number of labels, ascending, the indices in `train` of the texts of each draw."""

    @classmethod
    def of(cls, train: Labelled, test: Labelled, config: ProbeConfig) -> Drawn:
        """Draws the numbers of texts that `config.labels_each` names from `train`: small numbers several times.

        A draw has about the shares of labels that `train` has, and at least two texts of each label that has two.
        """
        draws = _draws(config, np.array(train.labels))
        used = np.unique(np.concatenate([draw for group in draws.values() for draw in group]))
        renumbered = {count: [np.searchsorted(used, draw) for draw in group] for count, group in draws.items()}
        return cls(_chosen(train, used), test, renumbered)

    @property
    def texts(self) -> list[str]:
        """All texts, those of the test last."""
        return [*self.train.texts, *self.test.texts]


def _chosen(labelled: Labelled, indices: Indices) -> Labelled:
    return Labelled([labelled.texts[i] for i in indices], [labelled.labels[i] for i in indices])


def _with_words(labelled: Labelled, which: str) -> Labelled:
    kept = np.flatnonzero([bool(words(text)) for text in labelled.texts])
    if left_out := len(labelled.texts) - len(kept):
        logger.warning("%s of %s %s texts have no words and are left out", left_out, len(labelled.texts), which)
    return _chosen(labelled, kept)


def _hold_out(labelled: Labelled) -> tuple[Labelled, Labelled]:
    """The texts to learn from, and those held out as the test."""
    order = _stratified_order(np.array(labelled.labels), np.random.default_rng(SEED))
    kept = len(order) - len(order) // _HELD_OUT
    return _chosen(labelled, order[:kept]), _chosen(labelled, order[kept:])


def _check(train: Labelled, test: Labelled) -> None:
    counts = Counter(train.labels)
    if len(test.texts) < 2:
        raise InputError(f"{len(test.texts)} texts are too few to test on: give more, or more labelled texts")
    if len(counts) < 2:
        raise InputError(f"all texts have the same label, {next(iter(counts), 'none')!r}: a probe needs at least two")
    if sum(count > 1 for count in counts.values()) < 2:
        raise InputError("fewer than two labels have more than one text: give more labelled texts")
    if unknown := sorted(set(test.labels) - set(counts)):
        raise InputError(
            f"the test has the label {unknown[0]!r}, which no text to learn from has: add some, or remove it"
        )
    known = {" ".join(words(text)) for text in train.texts}
    if shared := sum(" ".join(words(text)) in known for text in test.texts):
        logger.warning("%s of %s test texts are also among those to learn from", shared, len(test.texts))


def _draws(config: ProbeConfig, labels: npt.NDArray[Any]) -> dict[int, list[Indices]]:
    """For each number of labels, the indices of the texts of each draw."""
    available, needed = len(labels), 2 * len(np.unique(labels))
    counts = config.counts(available)
    left_out = [count for count in counts if not min(needed, available) <= count <= available]
    if left_out == counts:
        raise InputError(
            f"--labels-each {config.labels_each}: give at least {needed}, two for each label, and at most {available}, "
            "the texts to learn from"
        )
    if left_out:
        numbers = " and ".join(f"{count:,}" for count in left_out)
        logger.warning("no figures for %s labels: they must be %s to %s here", numbers, needed, f"{available:,}")
    return {
        count: [
            _stratified_order(labels, np.random.default_rng([SEED, draw]))[:count]
            for draw in range(_number_of_draws(count, available))
        ]
        for count in counts
        if count not in left_out
    }


def _number_of_draws(count: int, available: int) -> int:
    if count == available or count >= 10_000:
        return 1
    return 5 if count < 1000 else 3


def _stratified_order(labels: npt.NDArray[Any], rng: np.random.Generator) -> Indices:
    """All indices, shuffled so that the labels' shares are about the same in any first and any last part.

    The order begins with two of each label, if there are two.
    """
    shuffled = rng.permutation(len(labels))
    codes = np.unique(labels, return_inverse=True)[1][shuffled]
    by_label, counts = np.argsort(codes, kind="stable"), np.bincount(codes)
    within_label = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    place = np.empty(len(labels))
    place[by_label] = np.maximum(within_label - 1, 0) / np.repeat(counts, counts)
    order: Indices = shuffled[np.argsort(place, kind="stable")]
    return order
