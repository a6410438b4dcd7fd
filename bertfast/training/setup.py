"""What a run computes with in this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch

from bertfast.config import TrainConfig
from bertfast.distributed.world import World
from bertfast.model import Bert
from bertfast.sampling.sampler import Sampler


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

    @property
    def sampler(self) -> Sampler:
        """The first device's sampler; only DataParallel has more than one."""
        return self.samplers[0]

    def with_steps(self, steps: int) -> Setup:
        """The setup of a run of another number of steps."""
        return self._replace(config=dataclasses.replace(self.config, steps=steps))

    def samplers_at(self, step: int) -> Sequence[Sampler]:
        """Those that make the examples of `step`."""
        return self.short_samplers if step < self.config.first_long_step else self.samplers

    def stage(self, step: int) -> Setup:
        """The setup for `step` and those of its length."""
        return self._replace(config=self.config.at(step), samplers=self.samplers_at(step), short_samplers=())
