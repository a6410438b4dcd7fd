"""Short examples first, long ones last: what each step's batch is, and what a run of two lengths equals."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.small_run import CONFIG, CPU, make_model

from bertfast.distributed.world import make_world
from bertfast.errors import InputError
from bertfast.sampling.inspect import batch_lines
from bertfast.sampling.sampler import Sampler
from bertfast.training.job import TrainingJob
from bertfast.training.run_directory import RunDirectory
from bertfast.training.trainer import Trainer

STAGED = dataclasses.replace(CONFIG, steps=20, short_len=12)


def trained(corpus, config):
    world = make_world(config, [CPU], [CPU])
    return Trainer(TrainingJob(make_model(corpus), corpus, config), world, RunDirectory()).train()


@pytest.mark.parametrize(("steps", "first"), [(1, 0), (4, 3), (20, 18), (1000, 900)])
def test_the_last_tenth_is_long(steps, first):
    config = dataclasses.replace(STAGED, steps=steps)
    assert [config.at(step).max_len for step in range(steps)] == [12] * first + [24] * (steps - first)
    assert config.at(0).first_long_step == 0


def test_the_short_stage_is_a_run_of_short_examples(corpus):
    """Up to the change, losses have the bits of a run with this length; after it, those of long examples are seen."""
    staged, short = (trained(corpus, each).history.records for each in (STAGED, STAGED.at(0)))
    assert staged[:18] == short[:18]
    assert all(ours.mlm_loss != theirs.mlm_loss for ours, theirs in zip(staged[18:], short[18:], strict=True))


def test_a_stages_batches(corpus, monkeypatch):
    """Each step trains on the batch that `corpus show` prints, in the length of its stage."""
    lengths = []
    packed = Sampler.packed_within

    def noting(self, first, count, *sizes):
        lengths.append((int(first), self.config.max_len))
        return packed(self, first, count, *sizes)

    monkeypatch.setattr(Sampler, "packed_within", noting)
    trained(corpus, STAGED)
    size = STAGED.batch_size
    assert {first // size: length for first, length in lengths} == dict(enumerate([12] * 18 + [24] * 2))
    for step, least, most in ((17, 5, 12), (18, 13, 24)):
        words = [line.partition(": ")[2].split() for line in list(batch_lines(corpus, STAGED, step, size))[1:]]
        assert least <= max(map(len, words)) <= most


def test_only_positions_of_both_stages_are_trained(corpus):
    before = make_model(corpus).embeddings.position.weight.detach()
    changed = (trained(corpus, STAGED).model.embeddings.position.weight != before).any(1)
    assert torch.equal(changed.nonzero().flatten(), torch.arange(24))


@pytest.mark.parametrize("short_len", [4, 24, 30, -1])
def test_an_invalid_short_length(short_len):
    with pytest.raises(InputError, match=r"--short-len must lie between 5 and --max-len \(24\)"):
        dataclasses.replace(CONFIG, short_len=short_len)
