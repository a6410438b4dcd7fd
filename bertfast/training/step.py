"""Training steps: gradients, clipping, the optimizer, and the metrics of each step.

Two ways: `EagerSteps` reads each step's losses from the device before it updates the weights. `BucketedSteps` never
reads within a step: the step is a function of tensors on the device, so a CUDA graph can hold it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bertfast.distributed.collectives import AllReduce
from bertfast.distributed.cuda_graph import Graphs
from bertfast.distributed.threads import one_thread
from bertfast.sampling.padding import Buckets, PaddedSize, fill
from bertfast.training.gradients import (
    LOSSES,
    Gradients,
    Share,
    Shares,
    bounds,
    clip_factor,
    gradient_norm,
    make_gradients,
)
from bertfast.training.optimizer import Optimizer
from bertfast.training.ring import MOST_STEPS, Ring
from bertfast.training.schedule import learning_rates
from bertfast.training.setup import Setup

PLANNED_STEPS = 1000
"""The steps whose largest bucket is captured first. Planning them takes the host some tenths of a second."""

_RATES = 1024  # learning rates on the device at a time

_PLANNED_AHEAD = 100  # steps at a time, so that the host is only busy for a moment
_PLANNED_TOKENS = 1 << 22  # at most, at a time: a plan takes some 40 bytes per example


class Measured(NamedTuple):
    """The metrics of one step. If any is non-finite, the step has not changed the weights."""

    step: int
    mlm_loss: float
    nsp_loss: float
    kept_loss: float
    """`config.keep_vectors` times the mean distance to the kept vectors."""
    norm: float
    """The gradient norm before clipping."""
    flags: float
    """The sum of the ranks' flags."""
    tokens: int
    """Tokens of the global batch, special tokens included."""

    def is_finite(self) -> bool:
        return math.isfinite(self.mlm_loss + self.nsp_loss + self.kept_loss + self.norm)


class Steps(Protocol):
    """Runs the training steps."""

    def __call__(self, step: int, flag: float, wait: bool) -> list[Measured]:
        """Runs `step` and returns new metrics: each step's once, in order; with `wait`, all up to this step.

        Steps run in order, and `wait` is the same on all ranks. All ranks learn of a nonzero `flag` after the same
        step, and then have the metrics of all steps up to it.
        """

    def set_length(self, steps: int) -> None:
        """Sets the run's number of steps. Call it after a step with `wait`."""

    def close(self) -> None:
        """Frees what holds the process group or makes its teardown wait: see `Graphs`. Call it before that."""


def make_steps(setup: Setup, optimizer: Optimizer, first_step: int) -> Steps:
    if setup.world.captured:
        # torch.compile may recompile for another bucket's sizes, so each bucket runs uncaptured first.
        return BucketedSteps(setup, optimizer, first_step, Graphs(setup.world.device, each_first=setup.config.compile))
    return EagerSteps(setup, optimizer)


class EagerSteps:
    """Steps that run op by op. In a deterministic run, torch uses one thread outside the shards, too.

    OpenMP's threads spin for milliseconds after their work before they sleep, on cores that the next shards need.
    """

    def __init__(self, setup: Setup, optimizer: Optimizer) -> None:
        self._gradients: Gradients | None = make_gradients(setup)
        self._setup, self._optimizer = setup, optimizer

    def __call__(self, step: int, flag: float, wait: bool) -> list[Measured]:
        with one_thread() if self._setup.world.deterministic else contextlib.nullcontext():
            return [self._run(step, flag)]

    def set_length(self, steps: int) -> None:
        self._setup = self._setup.with_steps(steps)

    def close(self) -> None:
        """Frees DistributedDataParallel.

        As the last to hold the process group, it would wait for gloo's threads with the GIL, which they may wait for.
        """
        self._gradients = None

    def _run(self, step: int, flag: float) -> Measured:
        assert self._gradients is not None
        shares = Shares(self._setup, step)
        losses, gradients = self._gradients(shares, flag)
        norm = gradient_norm(gradients)
        mlm, nsp, kept, flags = losses.tolist()
        measured = Measured(step, mlm, nsp, kept, norm.item(), flags, shares.tokens)
        if measured.is_finite():
            head_rate, rate = (torch.full_like(norm, each) for each in learning_rates(step, self._setup.config))
            factor = clip_factor(norm, self._setup.config.max_grad_norm)
            self._optimizer.step(gradients, rate, factor, torch.zeros_like(norm), head_rate)
        return measured


class _Planned(NamedTuple):
    """What the host knows of a step beforehand."""

    bucket: PaddedSize
    tokens: int
    """Of the global batch, without fillers."""


class BucketedSteps:
    """Steps on one device per rank, with batches padded to a bucket's size, the same on all ranks.

    The step number and the next learning rates are on the device. The host only chooses the next bucket, which it knows
    from planning the whole batch. `graphs` has one graph per bucket.

    Ranks must stay in step: what one does because of a value it has read, all must do after the same step. So with
    several ranks, all read after the same steps, and get each step's metrics one step later.

    The first step runs uncaptured: the warm-up for captures computes, so it must be a step of the run. Right after it,
    the largest bucket of the next `PLANNED_STEPS` is captured, whichever comes next (see `Graphs`). The capture itself
    executes nothing: the step counter and all else change only when the graph is replayed, on the tensors' values at
    that time. All ranks plan the same steps, and so capture the same buckets in the same order.
    """

    def __init__(self, setup: Setup, optimizer: Optimizer, first_step: int, graphs: Graphs) -> None:
        config, world = setup.config, setup.world
        self._setup, self._sampler, self._optimizer = setup, setup.sampler, optimizer
        self._graphs, self._first_step = graphs, first_step
        self._alone = world.size == 1
        self._bounds = [bounds(config.batch_size, rank, world.size) for rank in range(world.size)]
        self._begin, end = self._bounds[world.rank]
        self._count = end - self._begin
        self._buckets = Buckets(max(end - begin for begin, end in self._bounds), config.max_len)
        device = setup.sampler.device
        self._ring = Ring(LOSSES + 2, first_step, device, MOST_STEPS if self._alone else 1)
        self._step = torch.full((1,), first_step, dtype=torch.int64, device=device)
        self._rates = torch.zeros(_RATES, 2, dtype=torch.float32, device=device)
        """Each step's `learning_rates`, in the row of its number modulo `_RATES`."""
        self._next_rates = 0  # the first step whose rates are not among them
        self._flag, self._flag_on_device = torch.zeros(1, dtype=torch.float32, device=device), 0.0
        self._at_once = max(1, min(_PLANNED_AHEAD, _PLANNED_TOKENS // (config.batch_size * config.max_len)))
        self._ahead: dict[int, _Planned] = {}
        self._tokens: dict[int, int] = {}  # of each step whose metrics are not read yet
        totals = torch.zeros(LOSSES + 1, dtype=torch.float32, device=device)
        self._sum = None if self._alone else AllReduce([*optimizer.parameters, totals])

    def __call__(self, step: int, flag: float, wait: bool) -> list[Measured]:
        bucket = self._bucket(step)
        if step >= self._next_rates:
            self._set_rates(step)
        if flag != self._flag_on_device:
            self._flag.fill_(flag)
            self._flag_on_device = flag
        self._graphs(bucket, lambda: self._run(bucket))
        if step == self._first_step and not self._setup.config.compile:
            self._capture_largest(range(step + 1, min(step + 1 + PLANNED_STEPS, self._setup.config.steps)))
        rows = self._ring.read(step, wait or (flag > 0 and self._alone))
        if any(flags for _, (*_, flags, _) in rows):
            rows += self._ring.read(step, wait=True)
        return [
            Measured(number, mlm, nsp, kept, norm, flags, self._tokens.pop(number))
            for number, (mlm, nsp, kept, flags, norm) in rows
        ]

    def set_length(self, steps: int) -> None:
        self._setup = self._setup.with_steps(steps)
        self._next_rates = 0
        self._ahead = {}

    def close(self) -> None:
        self._graphs.close()

    def _set_rates(self, first: int) -> None:
        """Writes the rates of `_RATES` steps from `first` on, over those of steps that the device has taken."""
        rates = [learning_rates(step, self._setup.config) for step in range(first, first + _RATES)]
        self._rates.copy_(torch.tensor(rates, dtype=torch.float32, device="cpu").roll(first % _RATES, 0))
        self._next_rates = first + _RATES

    def _capture_largest(self, steps: range) -> None:
        pieces = (steps[i : i + self._at_once] for i in range(0, len(steps), self._at_once))
        largest = max((planned.bucket for piece in pieces for planned in self._planned(piece)), default=None)
        if largest is not None:
            self._graphs.capture(largest, lambda: self._run(largest))

    def _bucket(self, step: int) -> PaddedSize:
        """A step's bucket. Plans several steps at once: a call to the planner costs more than one more step in it."""
        if step not in self._ahead:
            steps = range(step, min(step + self._at_once, self._setup.config.steps))
            self._ahead = dict(zip(steps, self._planned(steps), strict=True))
        bucket, self._tokens[step] = self._ahead.pop(step)
        return bucket

    def _planned(self, steps: range) -> list[_Planned]:
        """Of consecutive steps."""
        size = self._setup.config.batch_size
        plan = self._sampler.plan(steps.start * size, len(steps) * size)
        tokens, predictions = (
            torch.stack([numbers.view(-1, size)[:, begin:end].sum(1) for begin, end in self._bounds], 1).tolist()
            for numbers in (plan.lengths, plan.num_masked)
        )
        return [_Planned(self._buckets.of(*each), sum(each[0])) for each in zip(tokens, predictions, strict=True)]

    def _run(self, bucket: PaddedSize) -> None:
        config = self._setup.config
        first = self._step * config.batch_size
        batch = self._sampler.packed_within(first + self._begin, self._count, bucket.tokens, bucket.predictions)
        all_predictions = batch.cu_masked[-1:]
        if not self._alone:
            all_predictions = self._sampler.predictions(first, config.batch_size)
        batch, mlm_weights = fill(batch, bucket, 1 / all_predictions.clamp(min=1))
        share = Share.of(self._setup, batch, mlm_weights, self._count / config.batch_size)
        losses = share.weighed(self._setup, self._setup.model(*share.inputs(self._setup)))
        gradients: Sequence[Tensor] = torch.autograd.grad(losses.sum(), self._optimizer.parameters)
        totals = torch.cat([losses.detach(), self._flag])
        if self._sum is not None:
            *gradients, totals = self._sum([*gradients, totals])
        norm = gradient_norm(gradients)
        measured = torch.cat([totals, norm[None]])
        head_rate, rate = self._rates.index_select(0, self._step % _RATES)[0].unbind()
        refused = measured.sum().isfinite().logical_not().float()
        self._optimizer.step(gradients, rate, clip_factor(norm, config.max_grad_norm), refused, head_rate)
        self._ring.write(self._step, measured)
        self._step += 1
