"""Training steps, one after another: gradients, clipping, Adam, and what was measured.

Two ways: `EagerSteps` asks the device for each step's losses before it changes the weights. `BucketedSteps` asks for
nothing: a step is a function of tensors that stay on the device, which a CUDA graph can hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch

from bertfast.adam import Adam
from bertfast.buckets import Bucket, Buckets
from bertfast.config import TrainConfig
from bertfast.devices import World
from bertfast.gradients import Gradients, clip_factor, gradient_norm, make_gradients
from bertfast.graph import Graphs
from bertfast.model import Bert
from bertfast.ring import Ring
from bertfast.sampler import Sampler


class Measured(NamedTuple):
    """What one step has found. Where it is no number, the weights are as they were before."""

    step: int
    mlm_loss: float
    nsp_loss: float
    norm: float
    """The gradient's, before it was clipped."""
    stop: float
    """The sum of the ranks' flags."""

    def is_number(self) -> bool:
        return math.isfinite(self.mlm_loss + self.nsp_loss + self.norm)


class Steps(Protocol):
    """Takes a step."""

    def __call__(self, step: int, flag: float, wait: bool) -> list[Measured]:
        """What has become known of it and of those before: each step once, in order; with `wait`, all up to this one.

        Steps are taken in order. A `flag` that is not 0 is given with `wait`.
        """


def make_steps(
    model: Bert,
    samplers: list[Sampler],
    optimizer: Adam,
    config: TrainConfig,
    world: World,
    dtype: torch.dtype,
    first_step: int,
) -> Steps:
    if world.captured:
        run = Graphs(world.device)
        return BucketedSteps(model, samplers[0], optimizer, config, dtype, first_step, run)
    return EagerSteps(make_gradients(model, samplers, config, world, dtype), optimizer, config)


class EagerSteps:
    def __init__(self, gradients: Gradients, optimizer: Adam, config: TrainConfig) -> None:
        self._gradients, self._optimizer, self._config = gradients, optimizer, config

    def __call__(self, step: int, flag: float, wait: bool) -> list[Measured]:
        losses, gradients = self._gradients(step, flag)
        norm = gradient_norm(gradients)
        mlm_loss, nsp_loss, stop = losses.tolist()
        measured = Measured(step, mlm_loss, nsp_loss, norm.item(), stop)
        if measured.is_number():
            rate = torch.full_like(norm, learning_rate(step, self._config))
            factor = clip_factor(norm, self._config.max_grad_norm)
            self._optimizer.step(gradients, rate, factor, torch.zeros_like(norm))
        return [measured]


class BucketedSteps:
    """Steps of one process and one device, whose batches have a bucket's size.

    The step's number, its first example's, and the learning rate of every step are on the device. The host only says
    which bucket comes next, which it knows by planning the batch itself. `run(bucket, function)` calls the function,
    or does what it did before in that bucket.
    """

    def __init__(
        self,
        model: Bert,
        sampler: Sampler,
        optimizer: Adam,
        config: TrainConfig,
        dtype: torch.dtype,
        first_step: int,
        run: Callable[[Bucket, Callable[[], None]], None],
    ) -> None:
        self._model, self._sampler, self._optimizer = model, sampler, optimizer
        self._config, self._dtype, self._run = config, dtype, run
        self._buckets = Buckets(config.batch_size, config.max_len)
        device = sampler.device
        self._ring = Ring(3, first_step, device)
        self._step = torch.full((1,), first_step, device=device)
        self._first = self._step * config.batch_size
        rates = [learning_rate(step, config) for step in range(config.steps)]
        self._rates = torch.tensor(rates, dtype=torch.float32, device=device)

    def __call__(self, step: int, flag: float, wait: bool) -> list[Measured]:
        size = self._config.batch_size
        plan = self._sampler.plan(step * size, size)
        bucket = self._buckets.of(int(plan.lengths.sum()), int(plan.num_masked.sum()))
        self._run(bucket, lambda: self._take(bucket))
        return [Measured(number, mlm, nsp, norm, flag) for number, (mlm, nsp, norm) in self._ring.read(step, wait)]

    def _take(self, bucket: Bucket) -> None:
        config = self._config
        batch = self._sampler.packed_within(self._first, config.batch_size, *bucket)
        losses = torch.stack(self._model(*self._buckets.fill(batch), config.seed, self._dtype))
        gradients = torch.autograd.grad(losses.sum(), self._optimizer.parameters)
        norm = gradient_norm(gradients)
        measured = torch.cat([losses.detach(), norm[None]])
        rate, refused = self._rates.index_select(0, self._step)[0], measured.sum().isfinite().logical_not().float()
        self._optimizer.step(gradients, rate, clip_factor(norm, config.max_grad_norm), refused)
        self._ring.write(self._step, measured)
        self._step += 1
        self._first += config.batch_size


def learning_rate(step: int, config: TrainConfig) -> float:
    """Rises over `warmup` steps, then falls to 0 at the end, both on a straight line, as BERT's does."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    return config.lr * (config.steps - step) / max(1, config.steps - config.warmup)
