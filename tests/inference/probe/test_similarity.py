"""A probe of similarity, compared with scikit-learn and scipy."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import paired_cosine_distances
from support import planted_labels

from bertfast.config import EncodeConfig
from bertfast.data.readers.scored_pairs import ScoredPairs
from bertfast.errors import InputError
from bertfast.inference.encoder import Encoder
from bertfast.inference.probe.similarity import RANDOM, VECTORS, WORDS, Similarity, compare_similarity, probe_similarity
from bertfast.model import Bert
from bertfast.reporting.figure import Figure


def pairs(count: int = 300) -> ScoredPairs:
    """Two texts are similar if they have the same label, a little more so if the first is long."""
    first, second = planted_labels.labelled(count, 0), planted_labels.labelled(count, 1)
    rng = np.random.default_rng(2)
    scores = [
        4 * (one == other) + rng.random() + len(text) / 100
        for one, other, text in zip(first.labels, second.labels, first.texts, strict=True)
    ]
    # Some pairs share two neighbouring words, and some two others.
    texts = [
        " ".join([*np.array(one.split())[[0, 1 + i % 2]], other]) if i % 3 == 0 else other
        for i, (one, other) in enumerate(zip(first.texts, second.texts, strict=True))
    ]
    return ScoredPairs(first.texts, texts, scores)


def test_correlations_equal_scipys():
    given = pairs()
    encoder = planted_labels.encoder(knows=True)
    found = probe_similarity(encoder, given)
    torch.manual_seed(0)
    fresh = Encoder(Bert(encoder.model.config), encoder.tokenizer)
    vectorizer = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True).fit([*given.first, *given.second])
    ways = {
        WORDS: lambda texts: vectorizer.transform(texts).toarray(),
        VECTORS: lambda texts: encoder.embed(texts).numpy(),
        RANDOM: lambda texts: fresh.embed(texts).numpy(),
    }
    by_hand = {}
    for row, way in ways.items():
        cosines = 1 - paired_cosine_distances(way(given.first), way(given.second))
        # Many pairs share no word; rounding keeps their cosines equal.
        by_hand[row] = 100 * spearmanr(cosines.round(7), given.scores).statistic
    assert {row: figure.value for row, figure in found.correlations.items()} == pytest.approx(by_hand, abs=0.01)
    for other, gap in found.gaps.items():
        assert gap.value == pytest.approx(by_hand[VECTORS] - by_hand[other], abs=0.01)
    # Fisher's standard error of a correlation near 0 is 1 / sqrt(n - 3).
    assert found.correlations[WORDS].margin == pytest.approx(200 / 297**0.5, rel=0.25)
    assert probe_similarity(encoder, given).lines() == found.lines()


def test_only_a_model_that_knows_the_words_helps():
    knows = probe_similarity(planted_labels.encoder(knows=True), pairs()).sentence
    assert re.fullmatch(
        r"Pretraining helped with similarity \(vectors: [\d.]+ ± [\d.]+ points above a bag of words with IDF, "
        r"[\d.]+ ± [\d.]+ points above random weights\)\.",
        knows,
    )
    random = probe_similarity(planted_labels.encoder(knows=False), pairs()).sentence
    assert random.startswith("Pretraining did not help with similarity (vectors: ")


def test_a_comparison_warns_once_of_truncated_texts(said):
    encoder = planted_labels.encoder(knows=True)
    encoder.max_len = 4
    assert compare_similarity([("a", encoder), ("b", encoder)], pairs(20), EncodeConfig()).values.keys() == {"a", "b"}
    assert len([line for line in said if line.startswith("warning: 40 of 40 texts were truncated")]) == 1


@pytest.mark.parametrize(
    ("words", "random", "helped"),
    [(Figure(5, 2), Figure(3, 2), True), (Figure(-5, 2), Figure(3, 2), False), (Figure(5, 2), Figure(3, 4), False)],
)
def test_the_lines(words, random, helped):
    correlations = {WORDS: Figure(60, 2), VECTORS: Figure(65, 2.25), RANDOM: Figure(9, 12)}
    *lines, sentence = Similarity(1234, correlations, {WORDS: words, RANDOM: random}).lines()
    assert lines == [
        "similarity of 1,234 pairs: Spearman correlation with the scores, x 100, ± two standard errors",
        "bag of words with IDF  60.0 ± 2.0",
        "vectors                65.0 ± 2.2",
        "random weights         9.0 ± 12.0",
    ]
    assert sentence.startswith(f"Pretraining {'helped' if helped else 'did not help'} with similarity")


def test_a_text_without_words_is_similar_to_none():
    given = pairs(20)
    for first in ([""] * 20, ["", *given.first[1:]]):
        found = probe_similarity(planted_labels.encoder(knows=False), given._replace(first=first)).correlations
        assert all(np.isfinite(figure).all() for figure in found.values())
        assert (found[WORDS] == (0, 0)) == (not any(first))


def test_pairs_without_words():
    given = pairs(20)._replace(first=[""] * 20, second=["! ?"] * 20)
    with pytest.raises(InputError, match="similarity needs texts: there are no words in these pairs"):
        probe_similarity(planted_labels.encoder(knows=False), given)


@pytest.mark.parametrize("given", [pairs(9), pairs(20)._replace(scores=[1.0] * 20)])
def test_too_few_pairs(given):
    with pytest.raises(InputError, match="similarity needs at least 10 pairs with different scores: there are"):
        probe_similarity(planted_labels.encoder(knows=False), given)


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"^a probe needs scikit-learn: pip install 'bertfast\[probe\]'$"):
        probe_similarity(planted_labels.encoder(knows=False), pairs(20))
