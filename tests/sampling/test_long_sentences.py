"""Sentences too long for an example are divided; the sampler gives the share of tokens that no example holds."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch
from support.array_corpus import CONFIGS, Corpus, make_corpus, name

from bertfast.config import SamplerConfig
from bertfast.sampling.sampler import Sampler

VOCABULARY = 3000


def numbered_documents(seed: int, lengths: list[int]) -> list[list[list[int]]]:
    """Documents in which each token occurs once."""
    rng = random.Random(seed)
    sizes = [[rng.choice(lengths) for _ in range(rng.choice([1, 2, 3]))] for _ in range(12)]
    ids = iter(range(10, VOCABULARY))
    return [[[next(ids) for _ in range(size)] for size in document] for document in sizes]


def seen(corpus: Corpus, config: SamplerConfig, epochs: int) -> tuple[Sampler, set[int]]:
    """The sampler, and the tokens in the examples of some epochs."""
    sampler = Sampler(corpus, dataclasses.replace(config, mlm_probability=0.0, mask_share=0.0, random_share=0.0))
    ids: set[int] = set()
    for epoch in range(epochs):
        ids |= set(sampler.packed(epoch * sampler.num_examples, sampler.num_examples).input_ids.tolist())
    return sampler, ids


# Without nsp that drops pairs: which wrong next sentences occur is random.
EXACT = [
    each
    for each in CONFIGS
    if each.masking == "token" and (each.too_long == "truncate" or (each.objective, each.max_len) == ("sop", 64))
]


@pytest.mark.parametrize("config", EXACT, ids=name)
def test_every_token_is_in_an_example(config):
    """Except where pairs are dropped or a document has no pair; the sampler gives the share that is missing."""
    for seed in range(2):
        documents = numbered_documents(seed, [1, 2, 3, 9, 25, 31, 60, 61, 100])
        corpus = make_corpus(documents, VOCABULARY)
        sampler, ids = seen(corpus, config, 200)
        missing = np.count_nonzero(~np.isin(corpus.tokens, list(ids))) / len(corpus.tokens)
        assert sampler.unreached() == pytest.approx(missing)
        if config.objective == "none":
            assert missing == 0
        elif config.too_long == "truncate":
            lonely = [len(document[0]) for document in documents if len(document) == 1 and len(document[0]) <= 30]
            assert missing <= sum(lonely) / len(corpus.tokens)


def test_sentences_that_fit_are_not_copied():
    """The sampler uses the arrays of the corpus."""
    corpus = make_corpus([[[7] * 30, [8] * 31], [[9] * 28, [7] * 30]], 10)
    for objective, max_len in (("nsp", 64), ("sop", 64), ("none", 33)):
        sampler = Sampler(corpus, SamplerConfig(objective=objective, max_len=max_len))
        assert sampler._sentences.sentence_offsets is corpus.sentence_offsets
        assert sampler.unreached() == 0


def test_a_long_sentence_alone_in_its_document_makes_pairs():
    corpus = make_corpus([[list(range(10, 110))], [list(range(110, 210))]], 300)
    sampler = Sampler(corpus, SamplerConfig(objective="sop", max_len=64))
    assert sampler.num_examples == 2 * 3
    assert torch.unique(sampler.plan(0, 6).lengths).tolist() == [53]


def test_drop_divides_no_sentence():
    corpus = make_corpus([[[7] * 200, [8] * 5, [9] * 5]] * 2, 10)
    sampler = Sampler(corpus, SamplerConfig(too_long="drop", max_len=64))
    assert sampler.num_examples == 2
    assert sampler.unreached() == pytest.approx(200 / 210)
