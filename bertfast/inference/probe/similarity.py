"""Measures whether an encoder's vectors reflect how similar two texts are, beside word counts."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bertfast.config import EncodeConfig
from bertfast.data.readers.scored_pairs import ScoredPairs
from bertfast.errors import InputError
from bertfast.inference.encoder import Encoder
from bertfast.inference.probe.features import SEED, Vectors, require_scikit_learn, tf_idf, untrained, vectors
from bertfast.reporting.figure import Figure, table

logger = logging.getLogger(__name__)

WORDS, VECTORS, RANDOM = "bag of words with IDF", "vectors", "random weights"
_FEWEST = 10
_RESAMPLES = 200


@dataclasses.dataclass(frozen=True)
class Similarity:
    """A probe's result: Spearman correlations of cosines with the scores, times 100."""

    pairs: int
    correlations: dict[str, Figure]
    gaps: dict[str, Figure]
    """The correlation of the vectors, less that of word counts and less that of random weights."""

    def lines(self) -> list[str]:
        """The table, and a sentence that says whether pretraining helped."""
        return [
            f"similarity of {self.pairs:,} pairs: Spearman correlation with the scores, x 100, ± two standard errors",
            *table([[row, str(figure)] for row, figure in self.correlations.items()]),
            self.sentence,
        ]

    @property
    def sentence(self) -> str:
        helped = all(gap.certainly_positive for gap in self.gaps.values())
        evidence = ", ".join(gap.beside(f"{'a ' * (other == WORDS)}{other}") for other, gap in self.gaps.items())
        return f"Pretraining {'helped' if helped else 'did not help'} with similarity (vectors: {evidence})."


def probe_similarity(encoder: Encoder, pairs: ScoredPairs, config: EncodeConfig | None = None) -> Similarity:
    """How well the cosine of two texts' vectors, or of the TF-IDF of their words, correlates with the pair's score.

    A word's IDF is that among all texts of the pairs. Standard errors are from resampling the pairs. The same arguments
    give the same result. Raises InputError without scikit-learn, and for too few pairs or a single score.
    """
    require_scikit_learn()
    check_pairs(pairs)
    count, texts = len(pairs.scores), [*pairs.first, *pairs.second]
    counted = tf_idf(longest=1).fit_transform(texts)  # rows have length 1
    cosines = {WORDS: np.asarray(counted[:count].multiply(counted[count:]).sum(axis=1)).ravel()}
    encoders = [(VECTORS, encoder), (RANDOM, untrained(encoder))]
    cosines |= {row: _cosines(of_texts) for row, of_texts in vectors(encoders, texts, config or EncodeConfig())}
    correlations = Correlations.of(cosines, pairs)
    gaps = {other: correlations.gap(VECTORS, other) for other in (WORDS, RANDOM)}
    return Similarity(count, {row: correlations.figure(row) for row in cosines}, gaps)


def compare_similarity(
    encoders: Iterable[tuple[str, Encoder]], pairs: ScoredPairs, config: EncodeConfig
) -> Correlations:
    """The correlations of `probe_similarity` for the vectors of several encoders: a row for each, by its name."""
    logger.info("similarity of %s pairs", f"{len(pairs.scores):,}")
    texts = [*pairs.first, *pairs.second]
    cosines = {name: _cosines(of_texts) for name, of_texts in vectors(encoders, texts, config)}
    return Correlations.of(cosines, pairs)


def check_pairs(pairs: ScoredPairs) -> None:
    """Raises InputError for too few pairs, a single score, or texts without words."""
    if not any(re.search(r"\w", text) for text in (*pairs.first, *pairs.second)):
        raise InputError("similarity needs texts: there are no words in these pairs")
    if len(pairs.scores) < _FEWEST or len(set(pairs.scores)) < 2:
        raise InputError(
            f"similarity needs at least {_FEWEST} pairs with different scores: there are {len(pairs.scores)} pairs"
        )


class Correlations(NamedTuple):
    """Spearman correlations of several rows of cosines with the same scores, times 100."""

    values: dict[str, npt.NDArray[np.float64]]
    """For each row, the correlation on all pairs, then on `_RESAMPLES` resamples, which are the same for every row."""

    @classmethod
    def of(cls, cosines: Mapping[str, npt.NDArray[Any]], pairs: ScoredPairs) -> Correlations:
        scores, count = np.array(pairs.scores), len(pairs.scores)
        rng = np.random.default_rng(SEED)
        samples = [np.arange(count), *(rng.integers(count, size=count) for _ in range(_RESAMPLES))]
        return cls(
            {
                row: 100 * np.array([_spearman(values[sample], scores[sample]) for sample in samples])
                for row, values in cosines.items()
            }
        )

    def figure(self, row: str) -> Figure:
        return _figure(self.values[row])

    def gap(self, row: str, other: str) -> Figure:
        """The correlation of `row`, less that of `other`."""
        return _figure(self.values[row] - self.values[other])


def _cosines(of_both: Vectors) -> npt.NDArray[np.float64]:
    """(2 n, hidden) -> (n,): the cosines of rows i and n + i."""
    first, second = np.split(of_both.astype(np.float64), 2)
    cosines: npt.NDArray[np.float64] = (first * second).sum(1) / (
        np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    )
    return cosines


def _spearman(values: npt.NDArray[Any], scores: npt.NDArray[Any]) -> float:
    """Spearman's correlation; 0 if all values are equal, as the cosines of word counts of pairs that share no word."""
    from scipy.stats import rankdata  # here, since importing it is slow

    if np.ptp(values) == 0 or np.ptp(scores) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(values), rankdata(scores))[0, 1])


def _figure(values: npt.NDArray[np.float64]) -> Figure:
    """The value on all pairs, with a margin from those on the resamples."""
    return Figure(float(values[0]), 2 * float(values[1:].std(ddof=1)))
