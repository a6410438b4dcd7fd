"""Whether a pretrained encoder helps to tell labels: logistic regression on word counts and on frozen vectors."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bertfast.config import ProbeConfig
from bertfast.data.readers.labelled import Labelled
from bertfast.errors import InputError
from bertfast.inference.encoder import Encoder
from bertfast.inference.probe.features import SEED, Vectors, require_scikit_learn, tf_idf, untrained, vectors, words
from bertfast.inference.probe.verdict import (
    RANDOM,
    ROWS,
    VECTORS,
    WITH_RANDOM,
    WITH_VECTORS,
    WORDS,
    Classification,
    Column,
)
from bertfast.log import progress_bar

logger = logging.getLogger(__name__)

Numbers = npt.NDArray[Any]

# The share of the labelled texts that is held out as the test, if none is given: one in this many.
_HELD_OUT = 5
# Inverse strengths of regularisation, scikit-learn's C, to choose from. Features have rows of about length 1 in every
# row of the table, so the same ones suit all.
STRENGTHS = (0.1, 1.0, 10.0, 100.0)
_FOLDS = 5
# From so many labels on, one fold tells as much as all of them do of fewer labels.
_ONE_FOLD = 5000
_ITERATIONS = 1000


def probe_labels(
    encoder: Encoder, train: Labelled, test: Labelled | None = None, config: ProbeConfig | None = None
) -> Classification:
    """Learns the labels of `train` from word counts and from frozen vectors, and counts what is right on `test`.

    `test`: None for a fifth of `train`, with about its shares of labels. For each number of labels in
    `config.labels_each`, so many texts are drawn, several times if they are few. Each draw has about the shares of
    labels that all texts have, and each label at least twice, if there are two. A logistic regression is fitted to each
    of `ROWS`; its regularisation is what gets the most labels right in a cross-validation within the draw. The same
    arguments give the same result.

    Texts without a word are left out, with a warning, and so are numbers larger than the texts that there are. Raises
    InputError without scikit-learn, for texts too few or with a single label, and for a label that only `test` has.
    """
    require_scikit_learn()
    config = config or ProbeConfig()
    train, test = divided(train, test)
    drawn = Drawn.of(train, test, config)
    texts = _Texts(encoder, drawn, config)
    columns = []
    fits = sum(map(len, drawn.draws.values())) * len(ROWS)
    with progress_bar(desc="logistic regressions", total=fits, leave=False) as bar:
        for count, draws in drawn.draws.items():
            logger.info("learning from %s labels", f"{count:,}")
            correct: dict[str, list[npt.NDArray[np.bool_]]] = {row: [] for row in ROWS}
            for draw in draws:
                for row, found in texts.learned(draw):
                    correct[row].append(found)
                    bar.update()
            columns.append(Column(count, {row: np.stack(found) for row, found in correct.items()}))
    largest = max(Counter(test.labels).values()) / len(test.labels)
    return Classification(tuple(columns), len(test.labels), len(set(train.labels)), largest)


def compare_labels(encoders: Iterable[tuple[str, Encoder]], drawn: Drawn, config: ProbeConfig) -> Column:
    """What `probe_labels` finds for the vectors alone, of several encoders: a row for each, by its name.

    For the fewest labels of `drawn`. An encoder is used before the next one is asked for.
    """
    count, draws = next(iter(drawn.draws.items()))
    correct = {}
    for name, encoder in encoders:
        logger.info("learning from %s labels: %s", f"{count:,}", name)
        [found] = vectors([encoder], drawn.texts, config)
        correct[name] = np.stack([drawn.learned(draw, *_of_draw(found, draw, drawn)) for draw in draws])
    return Column(count, correct)


def divided(train: Labelled, test: Labelled | None = None) -> tuple[Labelled, Labelled]:
    """The texts to learn from and those to test on, without texts that have no words.

    `test`: None for a fifth of `train`. Raises InputError as `probe_labels` does.
    """
    train = _with_words(train, "labelled")
    if test is None:
        train, test = _divided(train)
    else:
        test = _with_words(test, "test")
    _check(train, test)
    return train, test


class Drawn(NamedTuple):
    """Texts to learn from, drawn several times, and those to test on."""

    train: Labelled
    """Those in any draw."""
    test: Labelled
    draws: dict[int, list[Numbers]]
    """For each number of labels, ascending, the indices in `train` of each draw's texts."""

    @classmethod
    def of(cls, train: Labelled, test: Labelled, config: ProbeConfig) -> Drawn:
        """Draws as many of `train` as `config.labels_each` says, as `probe_labels` does."""
        draws = _draws(config, np.array(train.labels))
        used = np.unique(np.concatenate([draw for each in draws.values() for draw in each]))
        kept = Labelled([train.texts[i] for i in used], [train.labels[i] for i in used])
        return cls(kept, test, {count: [np.searchsorted(used, draw) for draw in each] for count, each in draws.items()})

    @property
    def texts(self) -> list[str]:
        """All of them, those of the test last."""
        return [*self.train.texts, *self.test.texts]

    def learned(self, draw: Numbers, of_draw: Any, of_tests: Any) -> npt.NDArray[np.bool_]:
        """Which of the test's texts get their label from a model of the draw, by the features of both."""
        found = _fitted(of_draw, np.array(self.train.labels)[draw]).predict(of_tests) == np.array(self.test.labels)
        return np.asarray(found)


def _with_words(given: Labelled, which: str) -> Labelled:
    kept = [(text, label) for text, label in zip(given.texts, given.labels, strict=True) if words(text)]
    if left_out := len(given.texts) - len(kept):
        logger.warning("%s of %s %s texts have no words and are left out", left_out, len(given.texts), which)
    return Labelled([text for text, _ in kept], [label for _, label in kept])


def _divided(given: Labelled) -> tuple[Labelled, Labelled]:
    """The texts to learn from, and those held out as the test."""
    order = _stratified_order(np.array(given.labels), np.random.default_rng(SEED))
    held_out = len(order) // _HELD_OUT

    def chosen(indices: Numbers) -> Labelled:
        return Labelled([given.texts[i] for i in indices], [given.labels[i] for i in indices])

    return chosen(order[: len(order) - held_out]), chosen(order[len(order) - held_out :])


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


def _draws(config: ProbeConfig, labels: Numbers) -> dict[int, list[Numbers]]:
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
        told = " and ".join(f"{count:,}" for count in left_out)
        logger.warning("no figures for %s labels: they must be %s to %s here", told, needed, f"{available:,}")
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


def _stratified_order(labels: Numbers, rng: np.random.Generator) -> Numbers:
    """All indices, shuffled, so that the labels' shares are about the same in any beginning and in any end.

    It begins with two of each label, where there are two.
    """
    shuffled = rng.permutation(len(labels))
    codes = np.unique(labels, return_inverse=True)[1][shuffled]
    by_label, counts = np.argsort(codes, kind="stable"), np.bincount(codes)
    within_label = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    place = np.empty(len(labels))
    place[by_label] = np.maximum(within_label - 1, 0) / np.repeat(counts, counts)
    order: Numbers = shuffled[np.argsort(place, kind="stable")]
    return order


class _Texts:
    """The texts of a probe, with the vectors of all, computed once."""

    def __init__(self, encoder: Encoder, drawn: Drawn, config: ProbeConfig) -> None:
        self._drawn = drawn
        self._vectors = vectors([encoder, untrained(encoder)], drawn.texts, config)

    def learned(self, draw: Numbers) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
        """For each of `ROWS`, which of the test's texts get their label from a model of the draw."""
        for row, features in self._features(draw).items():
            yield row, self._drawn.learned(draw, *features)

    def _features(self, draw: Numbers) -> dict[str, tuple[Any, Any]]:
        """For each of `ROWS`, the features of the draw and of the test, dense or sparse."""
        vectorizer, drawn = tf_idf(longest=2), self._drawn
        of_draw = vectorizer.fit_transform([drawn.train.texts[i] for i in draw])
        counted = of_draw, vectorizer.transform(drawn.test.texts)
        by_model, by_random = (_of_draw(each, draw, drawn) for each in self._vectors)
        return {
            WORDS: counted,
            VECTORS: by_model,
            WITH_VECTORS: _joined(counted, by_model),
            RANDOM: by_random,
            WITH_RANDOM: _joined(counted, by_random),
        }


def _of_draw(found: Vectors, draw: Numbers, drawn: Drawn) -> tuple[Numbers, Numbers]:
    """The features of the draw and of the test that are the texts' vectors."""
    tests = len(drawn.test.texts)
    return _standardised(found[:-tests][draw], found[-tests:])


def _standardised(of_draw: Vectors, of_tests: Vectors) -> tuple[Numbers, Numbers]:
    """Both with the same change, after which each dimension has the draw's mean 0 and variance 1 / dimensions."""
    one, other = of_draw.astype(np.float64), of_tests.astype(np.float64)
    mean, scale = one.mean(0), one.std(0) * np.sqrt(one.shape[1])
    scale[scale == 0] = 1
    return (one - mean) / scale, (other - mean) / scale


def _joined(sparse: tuple[Any, Any], dense: tuple[Numbers, Numbers]) -> tuple[Any, Any]:
    from scipy.sparse import csr_array, hstack

    one, other = (hstack([left, csr_array(right)], format="csr") for left, right in zip(sparse, dense, strict=True))
    return one, other


def _fitted(features: Any, labels: Numbers) -> Any:
    """A logistic regression whose regularisation is chosen by cross-validation."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    fold = np.empty(len(labels), int)
    fold[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % _FOLDS
    right = np.zeros(len(STRENGTHS))
    with threadpool_limits(1):  # the solver's many short operations take longer on several
        for held_out in range(1 if len(labels) >= _ONE_FOLD else _FOLDS):
            rest, validation = np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)
            model = LogisticRegression(warm_start=True, max_iter=_ITERATIONS)
            for index, strength in enumerate(STRENGTHS):
                model.set_params(C=strength).fit(features[rest], labels[rest])
                right[index] += (model.predict(features[validation]) == labels[validation]).sum()
        return LogisticRegression(C=STRENGTHS[right.argmax()], max_iter=_ITERATIONS).fit(features, labels)
