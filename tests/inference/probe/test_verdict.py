"""The verdict on a probe's classifications, its table and its margins."""

from __future__ import annotations

import re
import statistics

import numpy as np
import pytest

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


def column(labels: int, right: dict[str, int], draws: int = 1) -> Column:
    """A column in which the first texts of 1,000 are classified correctly: `right` of them."""
    return Column(labels, {row: np.tile(np.arange(1000) < right[row], (draws, 1)) for row in ROWS})


RIGHT = {WORDS: 600, VECTORS: 700, WITH_VECTORS: 650, RANDOM: 500, WITH_RANDOM: 610}


@pytest.mark.parametrize(
    ("changes", "helped", "evidence"),
    [
        ({}, True, "vectors: 10.0 ± 1.9 points above TF-IDF, 9.0 ± 1.8 points above random weights with TF-IDF)."),
        # No better than word counts, or than random weights, alone or with counts; or the gap is too small.
        ({WORDS: 700}, False, "vectors: 0.0 ± 0.0 points above TF-IDF, 9.0"),
        ({WORDS: 750}, False, "vectors: 5.0 ± 1.4 points below TF-IDF, 9.0"),
        ({RANDOM: 710}, False, "vectors: 10.0 ± 1.9 points above TF-IDF, 1.0 ± 0.6 points below random weights)."),
        ({WITH_RANDOM: 710}, False, "vectors: 10.0 ± 1.9 points above TF-IDF, 1.0 ± 0.6 points below random weights w"),
        ({WORDS: 697}, False, "vectors: 0.3 ± 0.3 points above TF-IDF, 9.0"),
        # Better together with word counts, but random weights can be, too.
        ({WORDS: 720, WITH_VECTORS: 760}, True, "vectors with TF-IDF: 4.0 ± 1.2 points above TF-IDF, 15.0"),
        (
            {WITH_VECTORS: 760, WITH_RANDOM: 760},
            False,
            "vectors with TF-IDF: 16.0 ± 2.3 points above TF-IDF, 0.0 ± 0.0",
        ),
    ],
)
def test_the_sentence(changes, helped, evidence):
    found = Classification((column(100, RIGHT | changes),), 1000, 2, 0.5)
    assert found.sentence.startswith(
        f"Pretraining {'helped' if helped else 'did not help'} with 100 labels ({evidence}"
    )


def test_the_sentence_on_several_numbers_of_labels():
    columns = column(100, RIGHT, 5), column(1000, RIGHT), column(50_000, RIGHT | {WORDS: 900})
    sentence = Classification(columns, 1000, 2, 0.5).sentence
    head, rest = sentence.split(", but not with ")
    assert re.sub(r" \(.*?\)", "", head) == "Pretraining helped with 100 labels and 1,000 labels"
    assert re.sub(r" \(.*?\)", "", rest) == "50,000 labels."


def test_margins_include_draws_and_texts():
    correct = np.random.default_rng(0).random((4, 50)) < np.array([0.2, 0.4, 0.6, 0.9])[:, None]
    other = np.random.default_rng(1).random((4, 50)) < 0.5
    found = Column(10, {WORDS: correct, VECTORS: other})

    def margin(values):
        by_text = [statistics.mean(column) for column in values.T.tolist()]
        by_draw = [statistics.mean(row) for row in values.tolist()]
        return 2 * 100 * (statistics.variance(by_text) / 50 + statistics.variance(by_draw) / 4) ** 0.5

    assert found.accuracy(WORDS) == pytest.approx((100 * correct.mean(), margin(correct * 1.0)))
    difference = other * 1.0 - correct
    assert found.gap(VECTORS, WORDS) == pytest.approx((100 * difference.mean(), margin(difference)))


def test_the_table():
    lines = Classification((column(100, RIGHT, 5), column(4000, RIGHT)), 1000, 2, 0.612).lines()
    assert lines[:-1] == [
        "accuracy in % ± two standard errors on 1,000 texts with 2 labels, the commonest on 61.2% of them",
        "                                  100 labels, 5 draws  4,000 labels",
        "TF-IDF, words and pairs of words           60.0 ± 3.1    60.0 ± 3.1",
        "vectors                                    70.0 ± 2.9    70.0 ± 2.9",
        "vectors with TF-IDF                        65.0 ± 3.0    65.0 ± 3.0",
        "random weights                             50.0 ± 3.2    50.0 ± 3.2",
        "random weights with TF-IDF                 61.0 ± 3.1    61.0 ± 3.1",
    ]
