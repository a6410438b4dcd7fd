"""The masked-LM losses of models that use no context, against tables of joint probabilities."""

import math

import numpy as np
import pytest

from bertfast.config import SamplerConfig
from bertfast.reporting.context_free import ContextFree, unigram_entropy

MASKINGS = [
    SamplerConfig(mask_share=mask_share, random_share=random_share)
    for mask_share, random_share in ((0.8, 0.1), (1, 0), (0, 0), (0, 1), (0.5, 0.5), (0.2, 0.3), (0.9, 0))
]
SPECIALS = [0, 1, 5]


def counts(seed):
    found = np.random.default_rng(seed).integers(0, 50, 12)
    found[[0, 5]] = 0
    return found


def joint(p, masking):
    """(13, 12): the joint probability of the token at a position (12 for [MASK]) and its label."""
    drawn = [token for token in range(12) if token not in SPECIALS]
    table = np.zeros((13, 12))
    for label in range(12):
        table[12, label] += masking.mask_share * p[label]
        table[label, label] += (1 - masking.mask_share - masking.random_share) * p[label]
        for token in drawn:
            table[token, label] += masking.random_share / len(drawn) * p[label]
    return table


def loss(table, model):
    """The loss on `table` of a model that predicts by the joint probabilities `model`."""
    given = model.sum(1, keepdims=True).repeat(12, 1)
    chosen = table > 0
    return -(table[chosen] * np.log(model[chosen] / given[chosen])).sum()


def test_unigram_entropy():
    assert unigram_entropy(np.array([5, 5, 0, 5, 5])) == pytest.approx(math.log(4))


@pytest.mark.parametrize("masking", MASKINGS)
def test_on_the_corpus_it_is_the_entropy_of_the_label_given_the_token(masking):
    p = counts(0) / counts(0).sum()
    found = ContextFree.of(counts(0), counts(0), SPECIALS, masking)
    assert found.visible == pytest.approx(loss(joint(p, masking), joint(p, masking)), abs=1e-12)
    assert found.visible <= found.frequencies + 1e-12
    assert found.frequencies == unigram_entropy(counts(0))


@pytest.mark.parametrize("masking", MASKINGS)
def test_on_held_out_text_a_model_knows_only_the_corpus(masking):
    p = counts(1) / counts(1).sum()
    known = (counts(0) + 1) / (counts(0) + 1).sum()
    found = ContextFree.of(counts(1), counts(0) + 1, SPECIALS, masking)
    assert found.frequencies == pytest.approx(-(p * np.log(known)).sum(), abs=1e-12)
    assert found.visible == pytest.approx(loss(joint(p, masking), joint(known, masking)), abs=1e-12)
    least = ContextFree.of(counts(1), counts(1), SPECIALS, masking).visible
    assert found.visible > least or masking == MASKINGS[2]
