"""What a run computes with in this process."""

from __future__ import annotations

from typing import NamedTuple

import torch

from bertfast.config import TrainConfig
from bertfast.distributed.world import World
from bertfast.model import Bert
from bertfast.sampling.sampler import Sampler


class Setup(NamedTuple):
    model: Bert
    samplers: list[Sampler]
    """One per device of this process."""
    config: TrainConfig
    world: World
    dtype: torch.dtype
    """Of activations and matrix products."""

    @property
    def sampler(self) -> Sampler:
        """The first device's sampler; only DataParallel has more than one."""
        return self.samplers[0]
