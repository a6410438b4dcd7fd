"""The error message for a GPU that runs out of memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from bertfast.config import TrainConfig
from bertfast.distributed.world import World
from bertfast.errors import InputError


@contextlib.contextmanager
def explained_out_of_memory(config: TrainConfig, world: World) -> Iterator[None]:
    """Turns an out-of-memory error into an InputError that says how to use less memory."""
    try:
        yield
    except RuntimeError as error:
        causes: list[BaseException] = [error]
        while (cause := causes[-1].__context__) is not None:  # a capture that it breaks raises an error of its own
            causes.append(cause)
        if not any(isinstance(each, torch.OutOfMemoryError) for each in causes):
            raise
        ways = [f"lower --batch-size {config.batch_size}"]
        if 2 * world.shards <= config.batch_size and len(world.local) == 1:
            ways.append(f"compute the batch in more pieces (--shards {2 * world.shards})")
        if world.captured:
            ways.append("train without CUDA graphs, whose memory is never given back (--no-cuda-graph)")
        raise InputError(f"{world.device} is out of memory: {', or '.join(ways)}") from None
