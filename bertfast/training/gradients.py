"""A step's losses and gradients over all workers, summed in a fixed order or in the fastest one.

Both split the global batch into pieces of consecutive examples. Every rank knows the number of predictions in the whole
batch, so each piece's loss is scaled to its share of the global mean, and the pieces only need to be summed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel, parallel_apply, replicate

from bertfast.distributed.collectives import RankSum
from bertfast.distributed.tree_sum import TreeSum
from bertfast.model import Kept
from bertfast.sampling.batch import PackedBatch
from bertfast.sampling.padding import fill, rounded
from bertfast.training.setup import Setup

LOSSES = 3
"""Masked LM, next sentence, and the distance to the vectors to keep times its weight. Their sum is minimised."""


class Gradients(Protocol):
    """Computes the losses and gradients of a step, whose batch is in `shares`."""

    def __call__(self, shares: Shares, flag: float = 0.0) -> tuple[Tensor, list[Tensor]]:
        """Returns, the same on every rank, (4,) float32: the three losses and the sum of the ranks' flags; and the
        gradients of the parameters that require them, which the next call may overwrite.
        """


def make_gradients(setup: Setup) -> Gradients:
    return ShardedGradients(setup) if setup.world.deterministic else PlainGradients(setup)


class ShardedGradients:
    """The batch in `world.shards` shards, summed in one binary tree over the shards.

    The sum has the same bits for every number of ranks and threads: see bertfast.distributed.tree_sum.
    """

    def __init__(self, setup: Setup) -> None:
        world = setup.world
        self._setup = setup
        self._parameters = [parameter for parameter in setup.model.parameters() if parameter.requires_grad]
        self._shards = world.shards
        mine = world.shards // world.size
        self._mine = range(world.rank * mine, (world.rank + 1) * mine)
        self._sum_shards = TreeSum(world.device, min(torch.get_num_threads(), mine))
        totals = torch.zeros(LOSSES + 1, dtype=torch.float32, device=world.device)
        self._sum_ranks = RankSum([*self._parameters, totals], world.size) if world.size > 1 else None

    def __call__(self, shares: Shares, flag: float = 0.0) -> tuple[Tensor, list[Tensor]]:
        def compute(shard: int) -> list[Tensor]:
            losses = shares.losses(self._setup.model, shard, self._shards)
            gradients = torch.autograd.grad(losses.sum(), self._parameters)
            return [*gradients, torch.cat([losses.detach(), losses.new_zeros(1)])]

        total = self._sum_shards(self._mine, compute)
        total[-1][-1] = flag
        if self._sum_ranks is not None:
            total = self._sum_ranks(total)
        return total[-1], total[:-1]


class PlainGradients:
    """The batch in one piece per device, or in several in turn (`shards`); torch sums them in its fastest order.

    One process, DistributedDataParallel over several, or DataParallel over several GPUs in one process.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup, self._world = setup, (world := setup.world)
        self._ddp = DistributedDataParallel(setup.model) if world.size > 1 else None
        self._rounds = max(1, world.shards // (world.size * len(world.local)))

    def __call__(self, shares: Shares, flag: float = 0.0) -> tuple[Tensor, list[Tensor]]:
        world = self._world
        totals = torch.zeros(LOSSES + 1, dtype=torch.float32, device=world.device)
        self._setup.model.zero_grad()
        for turn in range(self._rounds):
            last = turn + 1 == self._rounds
            with contextlib.nullcontext() if self._ddp is None or last else self._ddp.no_sync():
                losses = self._losses(shares, world.rank * self._rounds + turn)
                losses.sum().backward()
            totals[:LOSSES] += losses.detach() / world.size
        totals[LOSSES] = flag
        if world.size > 1:
            dist.all_reduce(totals)
        return totals, [each.grad for each in self._setup.model.parameters() if each.grad is not None]

    def _losses(self, shares: Shares, piece: int) -> Tensor:
        """The piece's losses times the number of ranks, over which DistributedDataParallel takes the mean."""
        devices, model = self._world.local, self._setup.model
        pieces = self._world.size * self._rounds * len(devices)
        if len(devices) == 1:
            return shares.losses(self._ddp or model, piece, pieces, self._world.size)
        parts = [shares.of(piece * len(devices) + device, pieces, device) for device in range(len(devices))]
        outputs = parallel_apply(
            replicate(model, devices), [part.inputs(self._setup) for part in parts], devices=devices
        )
        weighed = [
            part.weighed(self._setup, losses).to(devices[0]) for part, losses in zip(parts, outputs, strict=True)
        ]
        return torch.stack(weighed).sum(0)


def bounds(size: int, piece: int, pieces: int) -> tuple[int, int]:
    """The range of a batch's examples in a piece: begin, end."""
    return size * piece // pieces, size * (piece + 1) // pieces


class Share(NamedTuple):
    """One piece of the global batch, and its weights in the batch's losses."""

    batch: PackedBatch
    mlm_weights: Tensor
    """(predictions,) float32."""
    share: float
    """Of the batch's examples."""
    kept: Kept | None

    @classmethod
    def of(cls, setup: Setup, batch: PackedBatch, mlm_weights: Tensor, share: float, device: int = 0) -> Share:
        """`batch`, with a `share` of the global batch's examples, on one of this process's devices."""
        kept = setup.teachers[device].vectors(batch) if setup.teachers else None
        return cls(batch, mlm_weights, share, kept)

    def times(self, factor: int) -> Share:
        """The share with `factor` times its weights: a factor of the loss would cost passes over its gradients."""
        if factor == 1:
            return self
        return self._replace(mlm_weights=self.mlm_weights * factor, share=self.share * factor)

    def inputs(self, setup: Setup) -> tuple[Any, ...]:
        """The arguments of the model's `forward`."""
        return self.batch, self.mlm_weights, setup.config.seed, setup.dtype, self.kept

    def weighed(self, setup: Setup, losses: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """(3,): the piece's summands of the batch's losses, from the model's losses of the piece.

        The batch's losses are summed: the third has the weight `config.keep_vectors` already.
        """
        mlm_loss, nsp_loss, distance = losses
        return torch.stack([mlm_loss, nsp_loss * self.share, distance * (self.share * setup.config.keep_vectors)])


class Shares:
    """The pieces of the global batch of one step."""

    def __init__(self, setup: Setup, step: int) -> None:
        self._setup, size = setup, setup.config.batch_size
        self._first = step * size
        self._plan = setup.sampler.plan(self._first, size)
        self._predictions = max(1, int(self._plan.num_masked.sum()))
        self.tokens = int(self._plan.lengths.sum())
        """Of the whole batch."""

    def losses(self, model: nn.Module, piece: int, pieces: int, times: int = 1) -> Tensor:
        """(3,): the piece's summands of the batch's losses, so many `times`, on this process's first device."""
        share = self.of(piece, pieces).times(times)
        return share.weighed(self._setup, model(*share.inputs(self._setup)))

    def of(self, piece: int, pieces: int, device: int = 0) -> Share:
        """The piece, on one of this process's devices."""
        size, sampler = self._setup.config.batch_size, self._setup.samplers[device]
        begin, end = bounds(size, piece, pieces)
        first, count = self._first + begin, end - begin
        if sampler.device.type == "cpu":
            padded = rounded(*(int(each[begin:end].sum()) for each in (self._plan.lengths, self._plan.num_masked)))
            batch = sampler.packed_within(torch.tensor([first], device="cpu"), count, padded.tokens, padded.predictions)
            batch, weights = fill(batch, padded, 1 / self._predictions)
        else:
            batch = sampler.packed(first, count)
            weights = torch.full_like(batch.labels, 1 / self._predictions, dtype=torch.float32)
        return Share.of(self._setup, batch, weights, count / size, device)


def gradient_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The norm of all gradients as one vector.

    On a CPU it is the norm of the rows' norms: torch takes these on all threads, but a whole tensor's norm on one.
    """
    if gradients[0].is_cuda:
        return nn.utils.get_total_norm(gradients)
    rows = [torch.linalg.vector_norm(each, dim=-1).flatten() for each in gradients]
    norm: Tensor = torch.linalg.vector_norm(torch.cat(rows))
    return norm


def clip_factor(norm: Tensor, longest: float) -> Tensor:
    """The factor that clips gradients with this `norm` to `longest`; 1 if they are shorter, or `longest` is 0."""
    return (longest / (norm + 1e-6)).clamp(max=1.0) if longest else torch.ones_like(norm)
