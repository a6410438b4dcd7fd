"""The result of a probe of labels: a table, and whether pretraining helped."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from bertfast.reporting.figure import Figure, table

WORDS = "TF-IDF, words and pairs of words"
VECTORS, WITH_VECTORS = "vectors", "vectors with TF-IDF"
RANDOM, WITH_RANDOM = "random weights", "random weights with TF-IDF"
_WITH_MODEL, _UNTRAINED = (VECTORS, WITH_VECTORS), (RANDOM, WITH_RANDOM)
ROWS = (WORDS, *_WITH_MODEL, *_UNTRAINED)


@dataclasses.dataclass(frozen=True)
class Column:
    """The results with one number of labels."""

    labels: int
    correct: dict[str, npt.NDArray[np.bool_]]
    """For each row (in a `Classification`, each of `ROWS`), (draws, test texts): which were classified correctly."""

    @property
    def draws(self) -> int:
        return len(next(iter(self.correct.values())))

    def accuracy(self, row: str) -> Figure:
        return _percent(self.correct[row].astype(float))

    def gap(self, row: str, other: str) -> Figure:
        """The accuracy of `row` less that of `other`, paired by draws and texts."""
        return _percent(self.correct[row].astype(float) - self.correct[other])

    @property
    def helped(self) -> bool:
        """Whether the better row with the model is certainly better than every row without it."""
        return all(gap.certainly_positive for _, gap in self._gaps)

    @property
    def evidence(self) -> str:
        gaps = ", ".join(gap.beside("TF-IDF" if row == WORDS else row) for row, gap in self._gaps)
        return f"{self.labels:,} labels ({self._better(_WITH_MODEL)}: {gaps})"

    @property
    def _gaps(self) -> list[tuple[str, Figure]]:
        """The gaps from the better row with the model to TF-IDF, and to the better row with random weights."""
        best = self._better(_WITH_MODEL)
        return [(row, self.gap(best, row)) for row in (WORDS, self._better(_UNTRAINED))]

    def _better(self, rows: tuple[str, ...]) -> str:
        return max(rows, key=lambda row: self.correct[row].mean())


@dataclasses.dataclass(frozen=True)
class Classification:
    """A probe's result."""

    columns: tuple[Column, ...]
    tests: int
    """The number of test texts."""
    labels: int
    """The number of different labels."""
    largest: float
    """The share of the test texts that have the commonest label."""

    def lines(self) -> list[str]:
        """The table, and a sentence that says whether pretraining helped."""
        header = [
            f"{column.labels:,} labels" + f", {column.draws} draws" * (column.draws > 1) for column in self.columns
        ]
        rows = [[row, *(str(column.accuracy(row)) for column in self.columns)] for row in ROWS]
        return [
            f"accuracy in % ± two standard errors on {self.tests:,} texts with {self.labels} labels, the commonest on "
            f"{100 * self.largest:.1f}% of them",
            *table([["", *header], *rows]),
            self.sentence,
        ]

    @property
    def sentence(self) -> str:
        helped = [column.evidence for column in self.columns if column.helped]
        not_helped = [column.evidence for column in self.columns if not column.helped]
        if not helped:
            return f"Pretraining did not help with {' and '.join(not_helped)}."
        exception = f", but not with {' and '.join(not_helped)}" if not_helped else ""
        return f"Pretraining helped with {' and '.join(helped)}{exception}."


def _percent(values: npt.NDArray[np.float64]) -> Figure:
    """The mean of (draws, texts), in percent. Its standard error includes the choice of draws and of texts."""
    draws, texts = values.shape
    variance = values.mean(0).var(ddof=1) / texts
    if draws > 1:
        variance += values.mean(1).var(ddof=1) / draws
    return Figure(100 * float(values.mean()), 200 * float(np.sqrt(variance)))
