"""Measures whether a pretrained encoder helps to classify texts: logistic regression on word counts and on vectors."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bertfast.config import ProbeConfig
from bertfast.data.readers.labelled import Labelled
from bertfast.inference.encoder import Encoder
from bertfast.inference.probe.draws import Drawn, train_and_test
from bertfast.inference.probe.features import Vectors, require_scikit_learn, tf_idf, untrained, vectors
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

# Inverse strengths of regularisation, scikit-learn's C, to choose from. The features of every row of the table have a
# length of about 1, so the same strengths suit all.
STRENGTHS = (0.1, 1.0, 10.0, 100.0)
_FOLDS = 5
# With this many labels, one fold is as precise as all folds of fewer labels.
_ONE_FOLD = 5000
_ITERATIONS = 1000


def probe_labels(
    encoder: Encoder, train: Labelled, test: Labelled | None = None, config: ProbeConfig | None = None
) -> Classification:
    """Learns the labels of `train` from word counts and from frozen vectors, and measures the accuracy on `test`.

    `test`: None for a fifth of `train`, with about the same shares of labels. For each number of labels in
    `config.labels_each`, that many texts are drawn, several times if they are few. Each draw has about the shares of
    labels that all texts have, and at least two texts of each label that has two. A logistic regression is fitted to
    each of `ROWS`; a cross-validation within the draw chooses its regularisation. The same arguments give the same
    result.

    Texts without words and numbers larger than the number of texts are left out, with a warning. Raises InputError
    without scikit-learn, for too few texts, for a single label, and for a label that only `test` has.
    """
    require_scikit_learn()
    config = config or ProbeConfig()
    train, test = train_and_test(train, test)
    drawn = Drawn.of(train, test, config)
    of_texts = dict(vectors([(VECTORS, encoder), (RANDOM, untrained(encoder))], drawn.texts, config))
    columns = []
    fits = sum(map(len, drawn.draws.values())) * len(ROWS)
    with progress_bar(desc="logistic regressions", total=fits, leave=False) as bar:
        for count, draws in drawn.draws.items():
            logger.info("learning from %s labels", f"{count:,}")
            correct: dict[str, list[npt.NDArray[np.bool_]]] = {row: [] for row in ROWS}
            for draw in draws:
                for row, features in _features(drawn, draw, of_texts).items():
                    correct[row].append(_correct(drawn, draw, *features))
                    bar.update()
            columns.append(Column(count, {row: np.stack(each) for row, each in correct.items()}))
    largest = max(Counter(test.labels).values()) / len(test.labels)
    return Classification(tuple(columns), len(test.labels), len(set(train.labels)), largest)


def compare_labels(encoders: Iterable[tuple[str, Encoder]], drawn: Drawn, config: ProbeConfig) -> Column:
    """The results of `probe_labels` for the vectors alone, of several encoders: a row for each, by its name.

    They are for the smallest number of labels in `drawn`.
    """
    count, draws = next(iter(drawn.draws.items()))
    correct = {}
    for name, of_texts in vectors(encoders, drawn.texts, config):
        logger.info("learning from %s labels: %s", f"{count:,}", name)
        correct[name] = np.stack([_correct(drawn, draw, *_vector_features(drawn, draw, of_texts)) for draw in draws])
    return Column(count, correct)


def _correct(drawn: Drawn, draw: Numbers, of_draw: Any, of_tests: Any) -> npt.NDArray[np.bool_]:
    """(test texts,): which get their label from a model fitted to the draw, given the features of both."""
    predicted = _fitted(of_draw, np.array(drawn.train.labels)[draw]).predict(of_tests)
    return np.asarray(predicted == np.array(drawn.test.labels))


def _features(drawn: Drawn, draw: Numbers, of_texts: Mapping[str, Vectors]) -> dict[str, tuple[Any, Any]]:
    """For each of `ROWS`, the features of the draw's and of the test's texts, dense or sparse."""
    vectorizer = tf_idf(longest=2)
    of_draw = vectorizer.fit_transform([drawn.train.texts[i] for i in draw])
    counted = of_draw, vectorizer.transform(drawn.test.texts)
    of_model, of_random = (_vector_features(drawn, draw, of_texts[row]) for row in (VECTORS, RANDOM))
    return {
        WORDS: counted,
        VECTORS: of_model,
        WITH_VECTORS: _joined(counted, of_model),
        RANDOM: of_random,
        WITH_RANDOM: _joined(counted, of_random),
    }


def _vector_features(drawn: Drawn, draw: Numbers, of_texts: Vectors) -> tuple[Numbers, Numbers]:
    """The vectors of the draw's and of the test's texts, standardised.

    Over the draw, each dimension then has the mean 0 and the variance 1 / dimensions.
    """
    tests = len(drawn.test.texts)
    of_draw, of_tests = of_texts[:-tests][draw].astype(np.float64), of_texts[-tests:].astype(np.float64)
    mean, scale = of_draw.mean(0), of_draw.std(0) * np.sqrt(of_draw.shape[1])
    scale[scale == 0] = 1
    return (of_draw - mean) / scale, (of_tests - mean) / scale


def _joined(sparse: tuple[Any, Any], dense: tuple[Numbers, Numbers]) -> tuple[Any, Any]:
    from scipy.sparse import csr_array, hstack

    of_draw, of_tests = (
        hstack([left, csr_array(right)], format="csr") for left, right in zip(sparse, dense, strict=True)
    )
    return of_draw, of_tests


def _fitted(features: Any, labels: Numbers) -> Any:
    """A logistic regression whose regularisation is chosen by cross-validation."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    fold = np.empty(len(labels), int)
    folds = min(_FOLDS, len(labels))
    fold[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % folds
    right = np.zeros(len(STRENGTHS))
    with threadpool_limits(1):  # the solver's many short operations are slower on several threads
        for held_out in range(1 if len(labels) >= _ONE_FOLD else folds):
            rest, validation = np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)
            model = LogisticRegression(warm_start=True, max_iter=_ITERATIONS)
            for index, strength in enumerate(STRENGTHS):
                model.set_params(C=strength).fit(features[rest], labels[rest])
                right[index] += (model.predict(features[validation]) == labels[validation]).sum()
        return LogisticRegression(C=STRENGTHS[right.argmax()], max_iter=_ITERATIONS).fit(features, labels)
