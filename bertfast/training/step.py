"""Training steps, one after another: gradients, clipping, Adam, and what was measured.

Two ways: `EagerSteps` asks the device for each step's losses before it changes the weights. `BucketedSteps` asks for
nothing: a step is a function of tensors that stay on the device, which a CUDA graph can hold.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bertfast.config import TrainConfig
from bertfast.distributed.cuda_graph import Graphs
from bertfast.distributed.process_group import AllReduce
from bertfast.distributed.tree_sum import one_thread
from bertfast.distributed.world import World
from bertfast.model import Bert
from bertfast.sampling.padding import Buckets, PaddedSize, fill
from bertfast.sampling.sampler import Sampler
from bertfast.training.adam import Adam
from bertfast.training.gradients import Gradients, Share, bounds, clip_factor, gradient_norm, make_gradients
from bertfast.training.ring import MOST_STEPS, Ring
from bertfast.training.schedule import learning_rate


class Measured(NamedTuple):
    """What one step has found. Where it is no number, the weights are as they were before."""

    step: int
    mlm_loss: float
    nsp_loss: float
    norm: float
    """The gradient's, before it was clipped."""
    flags: float
    """The sum of the ranks'."""

    def is_number(self) -> bool:
        return math.isfinite(self.mlm_loss + self.nsp_loss + self.norm)


class Steps(Protocol):
    """Takes a step."""

    def __call__(self, step: int, flag: float, wait: bool) -> list[Measured]:
        """What has become known of it and of those before: each step once, in order; with `wait`, all up to this one.

        Steps are taken in order, and `wait` is the same on all ranks. Where a `flag` that is not 0 becomes known, all
        ranks learn of it after the same step, up to which they then know all.
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
        return BucketedSteps(model, samplers[0], optimizer, config, world, dtype, first_step, run)
    return EagerSteps(make_gradients(model, samplers, config, world, dtype), optimizer, config, world.deterministic)


class EagerSteps:
    """With `sharded` gradients, whose threads take turns with this one, it computes with one thread.

    OpenMP's threads, once they have computed, spin for milliseconds before they sleep: on the cores of the shards that
    come next.
    """

    def __init__(self, gradients: Gradients, optimizer: Adam, config: TrainConfig, sharded: bool) -> None:
        self._gradients, self._optimizer, self._config, self._sharded = gradients, optimizer, config, sharded

    def __call__(self, step: int, flag: float, wait: bool) -> list[Measured]:
        with one_thread() if self._sharded else contextlib.nullcontext():
            return [self._take(step, flag)]

    def _take(self, step: int, flag: float) -> Measured:
        losses, gradients = self._gradients(step, flag)
        norm = gradient_norm(gradients)
        mlm_loss, nsp_loss, flags = losses.tolist()
        measured = Measured(step, mlm_loss, nsp_loss, norm.item(), flags)
        if measured.is_number():
            rate = torch.full_like(norm, learning_rate(step, self._config))
            factor = clip_factor(norm, self._config.max_grad_norm)
            self._optimizer.step(gradients, rate, factor, torch.zeros_like(norm))
        return measured


class BucketedSteps:
    """Steps of one device a rank, whose batches have a bucket's size, the same on all ranks.

    The step's number, its first example's, and the learning rate of every step are on the device. The host only says
    which bucket comes next, which it knows by planning the whole batch itself. `run(bucket, function)` calls the
    function, or does what it did before in that bucket.

    Ranks must not part: what one does by what it has read, all do after the same step. So with several, all read in the
    same steps, each step's numbers one step later.
    """

    def __init__(
        self,
        model: Bert,
        sampler: Sampler,
        optimizer: Adam,
        config: TrainConfig,
        world: World,
        dtype: torch.dtype,
        first_step: int,
        run: Callable[[PaddedSize, Callable[[], None]], None],
    ) -> None:
        self._model, self._sampler, self._optimizer = model, sampler, optimizer
        self._config, self._dtype, self._run = config, dtype, run
        self._alone = world.size == 1
        self._bounds = [bounds(config.batch_size, rank, world.size) for rank in range(world.size)]
        self._begin, end = self._bounds[world.rank]
        self._count = end - self._begin
        self._buckets = Buckets(max(end - begin for begin, end in self._bounds), config.max_len)
        device = sampler.device
        self._ring = Ring(4, first_step, device, MOST_STEPS if self._alone else 1)
        self._step = torch.full((1,), first_step, device=device)
        self._first = self._step * config.batch_size
        rates = [learning_rate(step, config) for step in range(config.steps)]
        self._rates = torch.tensor(rates, dtype=torch.float32, device=device)
        self._flag, self._said = torch.zeros(1, device=device), 0.0
        self._sum = None if self._alone else AllReduce([*optimizer.parameters, torch.zeros(3, device=device)])

    def __call__(self, step: int, flag: float, wait: bool) -> list[Measured]:
        bucket = self._bucket(step)
        if flag != self._said:
            self._flag.fill_(flag)
            self._said = flag
        self._run(bucket, lambda: self._take(bucket))
        found = self._ring.read(step, wait or (flag > 0 and self._alone))
        if any(flags for _, (_, _, flags, _) in found):
            found += self._ring.read(step, wait=True)
        return [Measured(number, mlm, nsp, norm, flags) for number, (mlm, nsp, flags, norm) in found]

    def _bucket(self, step: int) -> PaddedSize:
        size = self._config.batch_size
        plan = self._sampler.plan(step * size, size)
        tokens, predictions = (
            [int(numbers[begin:end].sum()) for begin, end in self._bounds]
            for numbers in (plan.lengths, plan.num_masked)
        )
        return self._buckets.of(tokens, predictions)

    def _take(self, bucket: PaddedSize) -> None:
        config = self._config
        batch = self._sampler.packed_within(self._first + self._begin, self._count, bucket.tokens, bucket.predictions)
        all_predictions = batch.cu_masked[-1:]
        if not self._alone:
            all_predictions = self._sampler.predictions(self._first, config.batch_size)
        batch, mlm_weights = fill(batch, bucket, 1 / all_predictions.clamp(min=1))
        share = Share(batch, mlm_weights, self._count / config.batch_size)
        losses = share.weighed(self._model(batch, mlm_weights, config.seed, self._dtype))
        gradients: Sequence[Tensor] = torch.autograd.grad(losses.sum(), self._optimizer.parameters)
        found = torch.cat([losses.detach(), self._flag])
        if self._sum is not None:
            *gradients, found = self._sum([*gradients, found])
        norm = gradient_norm(gradients)
        measured = torch.cat([found, norm[None]])
        rate, refused = self._rates.index_select(0, self._step)[0], measured.sum().isfinite().logical_not().float()
        self._optimizer.step(gradients, rate, clip_factor(norm, config.max_grad_norm), refused)
        self._ring.write(self._step, measured)
        self._step += 1
        self._first += config.batch_size
