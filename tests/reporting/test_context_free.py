"""The masked-LM losses that need no context."""

import math

import numpy as np
import pytest

from bertfast.reporting.context_free import ContextFree, contextless_loss, unigram_entropy

SHARES = [(0.8, 0.1), (1.0, 0.0), (0.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.2, 0.3), (0.9, 0.0)]
SPECIALS = [0, 1, 5]


def counts(seed):
    found = np.random.default_rng(seed).integers(0, 50, 12)
    found[[0, 5]] = 0
    return found


def joint(p, shares):
    """(13, 12): the probability of what stands at a position, row 12 for [MASK], and of its label."""
    mask_share, random_share = shares
    drawn = [token for token in range(12) if token not in SPECIALS]
    table = np.zeros((13, 12))
    for label in range(12):
        table[12, label] += mask_share * p[label]
        table[label, label] += (1 - mask_share - random_share) * p[label]
        for token in drawn:
            table[token, label] += random_share / len(drawn) * p[label]
    return table


def loss(table, model):
    """Of a model that says what `model` says of the label, given what stands there."""
    given = model.sum(1, keepdims=True).repeat(12, 1)
    chosen = table > 0
    return -(table[chosen] * np.log(model[chosen] / given[chosen])).sum()


def test_unigram_entropy():
    assert unigram_entropy(np.array([5, 5, 0, 5, 5])) == pytest.approx(math.log(4))


@pytest.mark.parametrize("shares", SHARES)
def test_contextless_loss_is_the_entropy_of_the_label_given_what_stands_there(shares):
    """Against the table of all that can stand there and all that can be right."""
    p = counts(0) / counts(0).sum()
    found = contextless_loss(counts(0), SPECIALS, *shares)
    assert found == pytest.approx(loss(joint(p, shares), joint(p, shares)), abs=1e-12)
    assert found <= unigram_entropy(counts(0)) + 1e-12
    assert ContextFree.within(counts(0), SPECIALS, *shares) == (unigram_entropy(counts(0)), found)


@pytest.mark.parametrize("shares", SHARES)
def test_on_held_out_text_a_model_knows_the_corpus_alone(shares):
    p = counts(1) / counts(1).sum()
    known = (counts(0) + 1) / (counts(0) + 1).sum()
    found = ContextFree.on(counts(1), counts(0), SPECIALS, *shares)
    assert found.frequencies == pytest.approx(-(p * np.log(known)).sum(), abs=1e-12)
    assert found.visible == pytest.approx(loss(joint(p, shares), joint(known, shares)), abs=1e-12)
    assert found.visible > contextless_loss(counts(1), SPECIALS, *shares) or shares == (0.0, 0.0)
