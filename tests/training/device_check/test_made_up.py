"""A made-up corpus and model: valid, and the same in every process."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from support.small_run import CONFIG, CPU

from bertfast.sampling.sampler import Sampler
from bertfast.training.device_check.made_up import MadeUpCorpus, made_up_model


def test_the_corpus_is_one():
    """No document and no sentence is empty, and no special token is among the words or continues one."""
    corpus = MadeUpCorpus()
    for offsets, end in (
        (corpus.sentence_offsets, len(corpus.tokens)),
        (corpus.document_offsets, len(corpus.sentence_offsets) - 1),
    ):
        assert (offsets[0], offsets[-1]) == (0, end)
        assert (np.diff(offsets) > 0).all()
    assert corpus.continuation.shape == (corpus.vocab_size,)
    assert max(corpus.special_ids) < corpus.tokens.min() and corpus.tokens.max() < corpus.vocab_size
    assert not corpus.continuation[list(corpus.special_ids)].any()


def test_every_process_has_the_same():
    one, other = MadeUpCorpus(), MadeUpCorpus()
    for name, value in vars(one).items():
        assert np.array_equal(value, vars(other)[name]), name
    state = torch.get_rng_state()
    first = made_up_model(CPU)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    second = made_up_model(CPU)
    assert first.training
    assert all(map(torch.equal, first.parameters(), second.parameters()))


def test_the_sampler_takes_it():
    """And makes pairs of both kinds from it."""
    batch = Sampler(MadeUpCorpus(), dataclasses.replace(CONFIG, max_len=64)).padded(0, 64)
    assert set(batch.next_sentence_label.tolist()) == {0, 1}
    assert batch.input_ids.max() < MadeUpCorpus.vocab_size <= made_up_model(CPU).config.vocab_size
