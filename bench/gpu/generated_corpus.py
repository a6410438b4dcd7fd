"""A corpus of random tokens with the statistics that affect speed, so that nothing needs to be downloaded.

Tokens follow Zipf's law. Sentences have the lengths of WikiText-2's (validation and test text, cut as the notebook
cuts it): 25.3 tokens on average with a standard deviation of 12.9, which a gamma distribution with that mean and
deviation gives. Documents have a geometric number of sentences.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tokenizers
from tokenizers.models import WordLevel

from bertfast.data.corpus import Corpus
from bertfast.data.tokenizing.special_tokens import SPECIAL_TOKENS
from bertfast.data.tokenizing.tokenizer import Tokenizer

MEAN, DEVIATION = 25.3, 12.9


def generated_corpus(vocab_size: int, sentences_per_document: float, sentences: int) -> Corpus:
    """The same arguments always give the same corpus."""
    random = np.random.default_rng(0)
    lengths = random.gamma((MEAN / DEVIATION) ** 2, DEVIATION**2 / MEAN, sentences).round().clip(1).astype(np.int64)
    in_documents = random.geometric(1 / sentences_per_document, sentences).cumsum()
    document_offsets = np.concatenate([[0], in_documents[in_documents < sentences], [sentences]])
    ranks = np.arange(1, vocab_size - len(SPECIAL_TOKENS) + 1)
    cumulated = (1 / ranks).cumsum() / (1 / ranks).sum()
    tokens = len(SPECIAL_TOKENS) + np.searchsorted(cumulated[:-1], random.random(lengths.sum()))
    words = [*SPECIAL_TOKENS, *(f"w{rank}" for rank in ranks)]
    backend = tokenizers.Tokenizer(WordLevel({word: id for id, word in enumerate(words)}, unk_token="[UNK]"))
    return Corpus(
        tokens=tokens.astype(np.uint16),
        sentence_offsets=np.concatenate([[0], lengths.cumsum()]),
        document_offsets=document_offsets,
        token_counts=np.bincount(tokens, minlength=vocab_size),
        continuation=np.zeros(vocab_size, np.uint8),
        tokenizer=Tokenizer(backend),
        folder=Path(),
        fingerprint=f"generated: {vocab_size} {sentences_per_document} {sentences}",
        description=("generated",),
        figures=("generated",),
        names=("generated",),
        language="",
        warnings=(),
        document="a document",
    )
