"""Trained tokenizers of each kind."""

from __future__ import annotations

import pytest
from support.tokenizer_texts import TEXTS, wikitext_sentences
from support.trained_tokenizer import train

from bertfast.config import CorpusConfig
from bertfast.data.tokenizing.tokenizer import Tokenizer


@pytest.fixture(scope="module", params=["word", "wordpiece", "char"])
def kind(request):
    return request.param


@pytest.fixture(scope="module", params=[True, False], ids=["lower-cased", "cased"])
def trained(request, kind) -> Tokenizer:
    return train(kind, TEXTS, CorpusConfig(min_freq=5, lowercase=request.param))


@pytest.fixture(scope="module")
def real(kind) -> Tokenizer:
    """Trained on WikiText-2's validation and test text."""
    return train(kind, wikitext_sentences(), CorpusConfig())
