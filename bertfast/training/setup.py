"""What a run computes with in this process, and how its model is prepared."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from bertfast._native import native
from bertfast._version import __version__
from bertfast.config import TrainConfig
from bertfast.data.corpus import Corpus
from bertfast.distributed.world import World
from bertfast.model import Bert
from bertfast.sampling.sampler import Sampler
from bertfast.training.teacher import Teacher


class Setup(NamedTuple):
    model: Bert
    samplers: Sequence[Sampler]
    """One per device of this process."""
    config: TrainConfig
    world: World
    dtype: torch.dtype
    """Of activations and matrix products."""
    short_samplers: Sequence[Sampler] = ()
    """The same for the steps before `config.first_long_step`, if there are any."""
    teachers: Sequence[Teacher] = ()
    """One per device of this process, if the run keeps the vectors of the model that it started from."""

    @property
    def sampler(self) -> Sampler:
        """The first device's sampler; only DataParallel has more than one."""
        return self.samplers[0]

    def with_teachers(self) -> Setup:
        """The setup of a run that keeps the model's present vectors, if its settings say so."""
        if not self.config.keep_vectors:
            return self
        return self._replace(
            teachers=[Teacher(self.model, self.config.kept_pooling, each.device, self.dtype) for each in self.samplers]
        )

    def with_steps(self, steps: int) -> Setup:
        """The setup of a run of another number of steps."""
        return self._replace(config=dataclasses.replace(self.config, steps=steps))

    def samplers_at(self, step: int) -> Sequence[Sampler]:
        """The samplers of the examples of `step`."""
        return self.short_samplers if step < self.config.first_long_step else self.samplers

    def stage(self, step: int) -> Setup:
        """The setup for `step` and all other steps with examples of its length."""
        return self._replace(config=self.config.at(step), samplers=self.samplers_at(step), short_samplers=())

    def readings(self, tokens: int) -> float:
        """How often the run reads a corpus of so many tokens."""
        config = self.config
        stages = ((0, 1 - config.long_share), (config.steps - 1, config.long_share))
        read = sum(
            share * int(self.samplers_at(step)[0].plan(0, config.batch_size).lengths.sum()) for step, share in stages
        )
        return config.steps * read / tokens


def prepare(model: Bert, corpus: Corpus, config: TrainConfig, world: World) -> None:
    """Moves the model to its device and prepares it for training."""
    model.config.check_takes(corpus.vocab_size, config)
    if world.deterministic and world.device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, at the first product
    native.keep_freed_memory()
    if not model.masked_lm_head.bias.any():
        model.masked_lm_head.start_from_frequencies(torch.from_numpy(np.array(corpus.token_counts)))
    for module in (model.pooler, model.next_sentence_head):  # unused without pairs
        module.requires_grad_(config.objective != "none")
    model.to(world.device).train()
    if world.device.type == "cpu":
        for each in model.parameters():
            each.data = each.data.clone()  # into the memory that is kept, in huge pages
    if config.compile:
        # torch keeps compiled graphs on disk, by their forward pass: another version's backward pass may differ.
        torch.compiler.config.cache_key_tag = f"bertfast {__version__}"
        model.compile(dynamic=True, fullgraph=True)  # one program for all batch sizes
