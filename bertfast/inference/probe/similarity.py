"""Whether a pretrained encoder tells how similar two texts are: its vectors' cosines beside those of word counts."""

from __future__ import annotations

import dataclasses
import logging
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
    """How far the vectors are above word counts, and above random weights."""

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
    """How well the cosine of two texts' vectors, or TF-IDF vectors of their words, follows the pair's score.

    Words' IDF is that among all texts of the pairs. Standard errors are from resampling the pairs. The same arguments
    give the same result. Raises InputError without scikit-learn, and for pairs that are few or have one score.
    """
    require_scikit_learn()
    check_pairs(pairs)
    count, texts = len(pairs.scores), [*pairs.first, *pairs.second]
    counted = tf_idf(longest=1).fit_transform(texts)  # rows have length 1
    by_model, by_random = vectors([encoder, untrained(encoder)], texts, config or EncodeConfig())
    cosines = {
        WORDS: np.asarray(counted[:count].multiply(counted[count:]).sum(axis=1)).ravel(),
        VECTORS: _cosines(by_model),
        RANDOM: _cosines(by_random),
    }
    found = Correlations.of(cosines, pairs)
    gaps = {other: found.gap(VECTORS, other) for other in (WORDS, RANDOM)}
    return Similarity(count, {row: found.figure(row) for row in cosines}, gaps)


def compare_similarity(
    encoders: Iterable[tuple[str, Encoder]], pairs: ScoredPairs, config: EncodeConfig
) -> Correlations:
    """What `probe_similarity` finds for the vectors of several encoders: a row for each, by its name.

    An encoder is used before the next one is asked for.
    """
    texts, cosines = [*pairs.first, *pairs.second], {}
    for name, encoder in encoders:
        logger.info("similarity of %s pairs: %s", f"{len(pairs.scores):,}", name)
        [found] = vectors([encoder], texts, config)
        cosines[name] = _cosines(found)
    return Correlations.of(cosines, pairs)


def check_pairs(pairs: ScoredPairs) -> None:
    """Raises InputError for pairs that are few or have one score."""
    if len(pairs.scores) < _FEWEST or len(set(pairs.scores)) < 2:
        raise InputError(
            f"similarity needs at least {_FEWEST} pairs with different scores: there are {len(pairs.scores)} pairs"
        )


class Correlations(NamedTuple):
    """Spearman correlations of several rows of cosines with the same scores, times 100."""

    found: dict[str, npt.NDArray[np.float64]]
    """Of each row: on all pairs, then on each of `_RESAMPLES` resamples, the same ones for every row."""

    @classmethod
    def of(cls, cosines: Mapping[str, npt.NDArray[Any]], pairs: ScoredPairs) -> Correlations:
        scores, count = np.array(pairs.scores), len(pairs.scores)
        rng = np.random.default_rng(SEED)
        samples = [np.arange(count), *(rng.integers(count, size=count) for _ in range(_RESAMPLES))]
        return cls(
            {
                row: 100 * np.array([_spearman(each[sample], scores[sample]) for sample in samples])
                for row, each in cosines.items()
            }
        )

    def figure(self, row: str) -> Figure:
        return _figure(self.found[row])

    def gap(self, row: str, other: str) -> Figure:
        """How far a row is above another."""
        return _figure(self.found[row] - self.found[other])


def _cosines(of_both: Vectors) -> npt.NDArray[np.float64]:
    """(2 n, hidden) -> (n,): row i beside row n + i."""
    first, second = np.split(of_both.astype(np.float64), 2)
    cosines: npt.NDArray[np.float64] = (first * second).sum(1) / (
        np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    )
    return cosines


def _spearman(values: npt.NDArray[Any], scores: npt.NDArray[Any]) -> float:
    """Spearman's correlation; 0 if all values are equal, since they order nothing: no pair may share a word."""
    from scipy.stats import rankdata  # here, since importing it is slow

    if np.ptp(values) == 0 or np.ptp(scores) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(values), rankdata(scores))[0, 1])


def _figure(found: npt.NDArray[np.float64]) -> Figure:
    """Of the figure found on all pairs, then on each resample."""
    return Figure(float(found[0]), 2 * float(found[1:].std(ddof=1)))
