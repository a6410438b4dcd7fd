"""The process group of a run, which all ranks join once they have checked that they will compute the same."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import json
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch.distributed as dist

from bertfast.distributed.differences import differences
from bertfast.distributed.peers import peers
from bertfast.distributed.world import World
from bertfast.errors import InputError, ProcessLost, Stopped


@contextlib.contextmanager
def joined(world: World, run: dict[str, Any], timeout: int) -> Iterator[None]:
    """The process group, once all ranks have arrived. Every rank's `run`, its description, must equal rank 0's.

    Raises InputError if it does not, and ProcessLost if a collective fails because another rank ended.
    """
    if world.size == 1:
        yield
        return
    store, theirs = peers().arrive(json.dumps(run))
    if found := differences(json.loads(theirs), run):
        raise InputError(
            f"rank {world.rank} would not compute the same as rank 0 (rank 0's -> its): {'; '.join(found)}"
        )
    clean_exit = True
    # The defaults of its functions are the group that exists at its first import. They would keep this one, and the
    # threads of gloo, one of which may release a tensor while the interpreter ends: that aborts the process.
    importlib.import_module("torch.distributed.nn")
    try:
        dist.init_process_group(
            "nccl" if world.device.type == "cuda" else "gloo",
            store=store,
            rank=world.rank,
            world_size=world.size,
            timeout=datetime.timedelta(seconds=timeout),
            # Otherwise NCCL learns a rank's device from its first collective, and guesses it for an earlier barrier.
            device_id=world.device if world.device.type == "cuda" else None,
        )
        yield
    except (InputError, Stopped):  # all ranks raise these after the same step
        raise
    except BaseException as error:
        # NCCL's teardown would wait for the other ranks, which don't know of the error.
        clean_exit = world.device.type == "cpu"
        if not _is_connection_error(error):
            raise
        clean_exit = False
        # torchrun sends SIGTERM once it sees a dead rank: the message that names the rank comes first.
        with handled_by(signal.SIG_IGN, signal.SIGTERM):
            what = peers().lost() or (
                f"lost the connection to another rank, or waited for it for {timeout} s (--timeout): "
                f"its own message, if it left one, says why ({str(error).splitlines()[0]})"
            )
            raise ProcessLost(f"rank {world.rank} {what}") from None
    finally:
        if dist.is_initialized() and clean_exit:
            dist.destroy_process_group()


@contextlib.contextmanager
def handled_by(handler: Callable[..., object] | signal.Handlers, *numbers: int) -> Iterator[None]:
    """The signals have this handler within the context, if this is the main thread, which alone may set one."""
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in numbers} if is_main else {}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _is_connection_error(error: BaseException) -> bool:
    """NCCL and the store have their own exceptions; gloo raises a RuntimeError that names its source file."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
