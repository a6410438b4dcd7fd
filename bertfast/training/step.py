"""Training steps, one after another: gradients, clipping, Adam, and what was measured.

Two ways: `EagerSteps` asks the device for each step's losses before it changes the weights. `BucketedSteps` asks for
nothing: a step is a function of tensors that stay on the device, which a CUDA graph can hold.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bertfast.config import TrainConfig
from bertfast.distributed.collectives import AllReduce
from bertfast.distributed.cuda_graph import Graphs
from bertfast.distributed.tree_sum import one_thread
from bertfast.sampling.padding import Buckets, PaddedSize, fill
from bertfast.training.adam import Adam
from bertfast.training.gradients import Gradients, Share, bounds, clip_factor, gradient_norm, make_gradients
from bertfast.training.ring import MOST_STEPS, Ring
from bertfast.training.schedule import learning_rate
from bertfast.training.setup import Setup

PLANNED_STEPS = 1000
"""Among which the largest bucket is captured first. To plan them takes the host some tenths of a second."""

_PLANNED_AHEAD = 100  # steps at a time: the host is to be busy for a moment only
_PLANNED_TOKENS = 1 << 22  # at a time, at most: what the host plans takes memory, some 40 bytes an example


class Measured(NamedTuple):
    """What one step has found. Where it is not finite, the weights are as they were before."""

    step: int
    mlm_loss: float
    nsp_loss: float
    norm: float
    """The gradient's, before it was clipped."""
    flags: float
    """The sum of the ranks'."""

    def is_finite(self) -> bool:
        return math.isfinite(self.mlm_loss + self.nsp_loss + self.norm)


class Steps(Protocol):
    """Takes a step."""

    def __call__(self, step: int, flag: float, wait: bool) -> list[Measured]:
        """What has become known of it and of those before: each step once, in order; with `wait`, all up to this one.

        Steps are taken in order, and `wait` is the same on all ranks. Where a `flag` that is not 0 becomes known, all
        ranks learn of it after the same step, up to which they then know all.
        """

    def close(self) -> None:
        """Frees what the steps hold on the device. To be called before the process group is destroyed: see `Graphs`."""


def make_steps(setup: Setup, optimizer: Adam, first_step: int) -> Steps:
    if setup.world.captured:
        # With torch.compile, which may compile anew for another bucket's sizes, each bucket runs uncaptured first.
        return BucketedSteps(setup, optimizer, first_step, Graphs(setup.world.device, each_first=setup.config.compile))
    return EagerSteps(make_gradients(setup), optimizer, setup.config, setup.world.deterministic)


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

    def close(self) -> None:
        """Nothing is held."""

    def _take(self, step: int, flag: float) -> Measured:
        losses, gradients = self._gradients(step, flag)
        norm = gradient_norm(gradients)
        mlm_loss, nsp_loss, flags = losses.tolist()
        measured = Measured(step, mlm_loss, nsp_loss, norm.item(), flags)
        if measured.is_finite():
            rate = torch.full_like(norm, learning_rate(step, self._config))
            factor = clip_factor(norm, self._config.max_grad_norm)
            self._optimizer.step(gradients, rate, factor, torch.zeros_like(norm))
        return measured


class BucketedSteps:
    """Steps of one device a rank, whose batches have a bucket's size, the same on all ranks.

    The step's number, its first example's, and the learning rate of every step are on the device. The host only says
    which bucket comes next, which it knows by planning the whole batch itself. `graphs` has one for each bucket.

    Ranks must not part: what one does by what it has read, all do after the same step. So with several, all read in the
    same steps, each step's numbers one step later.

    The first step runs as it is: what prepares for captures computes, so that it must be a step of the run. Right after
    it, the largest bucket of the next `PLANNED_STEPS` is captured, whatever comes next (see `Graphs`). That changes
    nothing: a capture does not execute, and counts up neither the step nor anything else until it is replayed, on what
    the tensors hold then. All ranks plan the same steps, and so capture the same buckets in the same order.
    """

    def __init__(self, setup: Setup, optimizer: Adam, first_step: int, graphs: Graphs) -> None:
        config, world = setup.config, setup.world
        self._model, self._sampler, self._optimizer = setup.model, setup.sampler, optimizer
        self._config, self._dtype, self._graphs, self._first_step = config, setup.dtype, graphs, first_step
        self._alone = world.size == 1
        self._bounds = [bounds(config.batch_size, rank, world.size) for rank in range(world.size)]
        self._begin, end = self._bounds[world.rank]
        self._count = end - self._begin
        self._buckets = Buckets(max(end - begin for begin, end in self._bounds), config.max_len)
        device = setup.sampler.device
        self._ring = Ring(4, first_step, device, MOST_STEPS if self._alone else 1)
        self._step = torch.full((1,), first_step, dtype=torch.int64, device=device)
        self._first = self._step * config.batch_size
        rates = [learning_rate(step, config) for step in range(config.steps)]
        self._rates = torch.tensor(rates, dtype=torch.float32, device=device)
        self._flag, self._said = torch.zeros(1, dtype=torch.float32, device=device), 0.0
        self._at_once = max(1, min(_PLANNED_AHEAD, _PLANNED_TOKENS // (config.batch_size * config.max_len)))
        self._ahead: dict[int, PaddedSize] = {}
        totals = torch.zeros(3, dtype=torch.float32, device=device)
        self._sum = None if self._alone else AllReduce([*optimizer.parameters, totals])

    def __call__(self, step: int, flag: float, wait: bool) -> list[Measured]:
        bucket = self._bucket(step)
        if flag != self._said:
            self._flag.fill_(flag)
            self._said = flag
        self._graphs(bucket, lambda: self._take(bucket))
        if step == self._first_step and not self._config.compile:
            self._capture_largest(range(step + 1, min(step + 1 + PLANNED_STEPS, self._config.steps)))
        found = self._ring.read(step, wait or (flag > 0 and self._alone))
        if any(flags for _, (_, _, flags, _) in found):
            found += self._ring.read(step, wait=True)
        return [Measured(number, mlm, nsp, norm, flags) for number, (mlm, nsp, flags, norm) in found]

    def close(self) -> None:
        self._graphs.close()

    def _capture_largest(self, steps: range) -> None:
        pieces = (steps[i : i + self._at_once] for i in range(0, len(steps), self._at_once))
        largest = max((bucket for piece in pieces for bucket in self._planned(piece)), default=None)
        if largest is not None:
            self._graphs.capture(largest, lambda: self._take(largest))

    def _bucket(self, step: int) -> PaddedSize:
        """A step's, planned with those that follow it: a call of the planner costs more than a step of its plan."""
        if step not in self._ahead:
            steps = range(step, min(step + self._at_once, self._config.steps))
            self._ahead = dict(zip(steps, self._planned(steps), strict=True))
        return self._ahead.pop(step)

    def _planned(self, steps: range) -> list[PaddedSize]:
        """The buckets of consecutive steps."""
        size = self._config.batch_size
        plan = self._sampler.plan(steps.start * size, len(steps) * size)
        tokens, predictions = (
            torch.stack([numbers.view(-1, size)[:, begin:end].sum(1) for begin, end in self._bounds], 1).tolist()
            for numbers in (plan.lengths, plan.num_masked)
        )
        return [self._buckets.of(*each) for each in zip(tokens, predictions, strict=True)]

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
