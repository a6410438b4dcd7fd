"""A text's words, and its vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support import planted_labels

from bertfast.config import EncodeConfig
from bertfast.inference.probe.features import tf_idf, untrained, vectors, words


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "It's RAINING, in Zürich!",
        "漢字 and ÉTÉ...",
        "a\tb\u00a0c\u200bd",
        "x" * 500,
        "[MASK] don't",
        "１２ ½",
    ],
)
def test_words_are_those_of_berts_basic_tokenizer(text):
    basic = pytest.importorskip("transformers.models.bert.tokenization_bert_legacy").BasicTokenizer
    assert words(text) == basic(do_lower_case=True, strip_accents=False).tokenize(text)


@pytest.mark.parametrize("longest", [1, 2])
def test_tf_idf_by_hand(longest):
    """A run's count c in a text weighs (1 + log c) (1 + log((1 + n) / (1 + texts that hold it))), then unit length."""
    texts = [["a", "a", "b"], ["b", "!"], ["a", "c"]]
    found = tf_idf(longest).fit([" ".join(each) for each in texts])
    runs = [[tuple(t[i : i + n]) for n in range(1, longest + 1) for i in range(len(t) - n + 1)] for t in texts]
    names = sorted({" ".join(run) for each in runs for run in each})
    assert found.get_feature_names_out().tolist() == names
    expected = np.zeros((3, len(names)))
    for row, each in zip(expected, runs, strict=True):
        for run in set(each):
            holding = sum(run in other for other in runs)
            row[names.index(" ".join(run))] = (1 + math.log(each.count(run))) * (1 + math.log(4 / (1 + holding)))
        row /= np.linalg.norm(row)
    np.testing.assert_allclose(found.transform([" ".join(each) for each in texts]).toarray(), expected, rtol=1e-12)


TEXTS = ["g1 b2", "g3", "", " ".join(f"g{i}" for i in range(200))]


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ({}, "warning: 1 of 4 texts were truncated to the 64 tokens that the model takes; "),
        ({"max_len": 4}, "warning: 1 of 4 texts were truncated to 4 tokens (max_len); "),
        ({"long": "window"}, None),
    ],
)
def test_vectors_are_those_of_embed(said, settings, warning):
    """For each encoder; and the warning comes once."""
    encoders = [planted_labels.encoder(knows=each) for each in (True, False)]
    for encoder in encoders:
        encoder.max_len = 64
    found = list(vectors(zip("ab", encoders, strict=True), TEXTS, EncodeConfig(**settings)))
    assert said == ([] if warning is None else [f"{warning}'window' instead encodes them whole"])
    assert [name for name, _ in found] == ["a", "b"]
    for encoder, (_, of_texts) in zip(encoders, found, strict=True):
        assert of_texts.shape == (4, 16)
        if warning is None:
            assert np.array_equal(of_texts, encoder.embed(TEXTS, **settings).numpy())
        else:
            with pytest.warns(UserWarning, match="1 of 4 texts were truncated"):
                assert np.array_equal(of_texts, encoder.embed(TEXTS, **settings).numpy())


def test_an_untrained_encoder():
    """It differs in its weights alone, is the same each time, and leaves no trace in torch."""
    encoder = planted_labels.encoder(knows=True)
    encoder.max_len = 7
    state = torch.get_rng_state()
    fresh = untrained(encoder)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    again = untrained(encoder)
    assert (fresh.model.config, fresh.max_len) == (encoder.model.config, 7)
    assert fresh.tokenizer is encoder.tokenizer
    assert all(map(torch.equal, fresh.model.parameters(), again.model.parameters()))
    rows = slice(1, encoder.tokenizer.vocab_size)  # the others are zeros
    weights = [each.model.embeddings.word.weight.detach()[rows] for each in (fresh, encoder)]
    assert not torch.isclose(*weights).all(1).any()
    assert weights[0].std().item() == pytest.approx(0.02, rel=0.1)
