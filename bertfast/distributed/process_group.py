"""The processes of a run: how they find each other, and make sure that they do the same."""

from __future__ import annotations

import contextlib
import datetime
import json
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch.distributed as dist

from bertfast.distributed.differences import differences
from bertfast.distributed.peers import peers
from bertfast.distributed.world import World
from bertfast.errors import InputError, ProcessLost, Stopped


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
