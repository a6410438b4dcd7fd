"""Collectives over a run's processes: a number from rank 0, a barrier, sums of tensors, and shared-out tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from bertfast.distributed.world import World


def from_rank_0(world: World, number: int) -> int:
    """Rank 0's `number`, on every rank."""
    if world.size == 1:
        return number
    result = torch.tensor(number, device=world.device)
    dist.broadcast(result, 0)
    return int(result)


def wait_for_all(world: World) -> None:
    """A barrier: returns once every rank has called it."""
    if world.size > 1:
        dist.barrier()


class AllReduce:
    """The sum of every rank's list of tensors, in one call, in the library's fastest order.

    All ranks get the same bits. It never synchronizes with the host.
    """

    def __init__(self, like: Sequence[Tensor]) -> None:
        sizes = [tensor.numel() for tensor in like]
        self._flat = torch.empty(sum(sizes), dtype=torch.float32, device=like[0].device)
        pieces = self._flat.split(sizes)
        self._views = [piece.view_as(tensor) for piece, tensor in zip(pieces, like, strict=True)]

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum, in memory that the next call overwrites."""
        torch.cat([tensor.reshape(-1) for tensor in tensors], out=self._flat)
        dist.all_reduce(self._flat)
        return self._views


class RankSum:
    """The sum of every rank's list of tensors, in the upper part of one binary tree over the ranks.

    A reduce-scatter, then an all-gather: each rank receives all ranks' values for one slice, sums them, and sends the
    sum to all. No rank sends or receives more than twice what it holds, and each element is summed once. The number of
    ranks is a power of two.
    """

    def __init__(self, like: list[Tensor], size: int) -> None:
        self._size = size
        numbers = sum(tensor.numel() for tensor in like)
        self._flat = torch.zeros(-(-numbers // size) * size, dtype=torch.float32, device=like[0].device)
        self._received = torch.empty_like(self._flat)
        pieces = self._flat[:numbers].split([tensor.numel() for tensor in like])
        self._views = [piece.view_as(tensor) for piece, tensor in zip(pieces, like, strict=True)]

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]:
        """The sum, in memory that the next call overwrites."""
        for view, tensor in zip(self._views, tensors, strict=True):
            view.copy_(tensor)
        dist.all_to_all_single(self._received, self._flat)
        parts = self._received.view(self._size, -1)
        while len(parts) > 1:
            parts = parts[0::2].add_(parts[1::2])
        dist.all_gather(list(self._flat.chunk(self._size)), parts[0])
        return self._views


class SharedOut:
    """Tensors of `shapes`, in one buffer, that the ranks share out: rank i mod size computes tensor i.

    `exchange`, an all-gather, never synchronizes with the host.
    """

    def __init__(self, shapes: Sequence[Sequence[int]], dtype: torch.dtype, world: World) -> None:
        sizes = [math.prod(shape) for shape in shapes]
        shares = [range(rank, len(shapes), world.size) for rank in range(world.size)]
        longest = max(sum(sizes[i] for i in share) for share in shares)
        self._world, self._all = world, torch.empty((world.size, longest), dtype=dtype, device=world.device)
        self.mine = shares[world.rank]
        """The numbers of the tensors that this rank computes."""
        views: dict[int, Tensor] = {}
        for row, share in zip(self._all, shares, strict=True):
            pieces = row[: sum(sizes[i] for i in share)].split([sizes[i] for i in share])
            views |= {i: piece.view(tuple(shapes[i])) for i, piece in zip(share, pieces, strict=True)}
        self.tensors = [views[i] for i in range(len(shapes))]

    def exchange(self) -> None:
        """Fills the other ranks' tensors with their results. All ranks call it."""
        if self._world.size > 1:
            rows = self._all.view(torch.uint8)  # every backend sends bytes
            dist.all_gather(list(rows), rows[self._world.rank])
