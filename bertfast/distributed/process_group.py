"""The processes of a run: how they find each other, make sure that they do the same, and sum what each has computed."""

from __future__ import annotations

import contextlib
import datetime
import json
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bertfast.distributed.peers import peers
from bertfast.distributed.world import World
from bertfast.errors import InputError, ProcessLost, Stopped
from bertfast.training.adam import Adam
from bertfast.training.fingerprint import differences


@contextlib.contextmanager
def joined(world: World, run: dict[str, Any], timeout: int) -> Iterator[None]:
    """The group of all ranks, once all have arrived. Every rank's `run`, what it is about to do, must equal rank 0's.

    Raises InputError where it does not, and ProcessLost where another rank's end breaks a collective.
    """
    if world.size == 1:
        yield
        return
    store, theirs = peers().arrive(json.dumps(run))
    if found := differences(json.loads(theirs), run):
        raise InputError(f"rank {world.rank} would compute otherwise than rank 0 (rank 0's -> its): {'; '.join(found)}")
    leaves = True
    try:
        dist.init_process_group(
            "nccl" if world.device.type == "cuda" else "gloo",
            store=store,
            rank=world.rank,
            world_size=world.size,
            timeout=datetime.timedelta(seconds=timeout),
            # NCCL else learns a rank's device by its first collective, and guesses it for a barrier before.
            device_id=world.device if world.device.type == "cuda" else None,
        )
        yield
    except (InputError, Stopped):  # all ranks end so, after the same step
        raise
    except BaseException as error:
        leaves = world.device.type == "cpu"  # NCCL's teardown would wait for the others, who know nothing of the error
        if not _tells_of_a_lost_peer(error):
            raise
        leaves = False
        with _not_terminated():
            what = peers().lost() or (
                f"lost the connection to another rank, or waited for it for {timeout} s (--timeout): "
                f"its own message, if it left one, says why ({str(error).splitlines()[0]})"
            )
            raise ProcessLost(f"rank {world.rank} {what}") from None
    finally:
        if dist.is_initialized() and leaves:
            dist.destroy_process_group()


@contextlib.contextmanager
def _not_terminated() -> Iterator[None]:
    """Ignores SIGTERM: torchrun sends it as soon as it sees that a rank has died, and first is to be told which one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tells_of_a_lost_peer(error: BaseException) -> bool:
    """NCCL and the store have their own exceptions; gloo raises a RuntimeError that names its source file."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def share_state(world: World, model: nn.Module, optimizer: Adam, step: int) -> int:
    """Gives every rank what rank 0 holds: weights, steps done (the result), then Adam's state.

    So only rank 0 needs to read the checkpoint.
    """
    if world.size == 1:
        return step
    step = told_by_rank_0(world, step)
    for parameter in model.parameters():
        dist.broadcast(parameter.detach(), 0)
        torch.autograd.graph.increment_version(
            parameter
        )  # torch does not see it, and a copy is not the weight's any more
        if step and parameter.requires_grad:
            state = optimizer.state[parameter]
            state["step"].fill_(step)
            dist.broadcast(state["exp_avg"], 0)
            dist.broadcast(state["exp_avg_sq"], 0)
    return step


def told_by_rank_0(world: World, number: int) -> int:
    """Rank 0's `number`, on every rank."""
    if world.size == 1:
        return number
    told = torch.tensor(number, device=world.device)
    dist.broadcast(told, 0)
    return int(told)


def wait_for_all(world: World) -> None:
    """Returns once every rank has come here."""
    if world.size > 1:
        dist.barrier()


class AllReduce:
    """The sum of every rank's list of tensors, by one call, in the order that the library finds fastest.

    Of the same lists all ranks get the same bits. It asks the host for nothing.
    """

    def __init__(self, like: Sequence[Tensor]) -> None:
        sizes = [tensor.numel() for tensor in like]
        self._flat = torch.empty(sum(sizes), device=like[0].device)
        pieces = self._flat.split(sizes)
        self._views = [piece.view_as(tensor) for piece, tensor in zip(pieces, like, strict=True)]

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum; it stands in memory that the next call overwrites."""
        torch.cat([tensor.reshape(-1) for tensor in tensors], out=self._flat)
        dist.all_reduce(self._flat)
        return self._views


class RankSum:
    """The sum of every rank's list of tensors, in the upper part of one binary tree over the ranks.

    Each rank gets everyone's part of one stretch of the numbers, sums that, and hands it to all: no rank sends or
    receives more than twice what it holds, and every number is summed once. The number of ranks is a power of two.
    """

    def __init__(self, like: list[Tensor], size: int) -> None:
        self._size = size
        numbers = sum(tensor.numel() for tensor in like)
        self._flat = torch.zeros(-(-numbers // size) * size, device=like[0].device)
        self._received = torch.empty_like(self._flat)
        pieces = self._flat[:numbers].split([tensor.numel() for tensor in like])
        self._views = [piece.view_as(tensor) for piece, tensor in zip(pieces, like, strict=True)]

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]:
        """The sum; it stands in memory that the next call overwrites."""
        for view, tensor in zip(self._views, tensors, strict=True):
            view.copy_(tensor)
        dist.all_to_all_single(self._received, self._flat)
        parts = self._received.view(self._size, -1)
        while len(parts) > 1:
            parts = parts[0::2].add_(parts[1::2])
        dist.all_gather(list(self._flat.chunk(self._size)), parts[0])
        return self._views
