"""A function on every rank of a gloo process group, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from support.processes import SERVER, running
from support.small_run import CPU
from support.torchrun import HANGS

from bertfast.distributed.world import World


def on_ranks(size: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(world, *arguments)` returns on each of `size` ranks; `folder` is empty before."""
    processes = [
        SERVER.Process(target=_rank, args=(rank, size, folder, function, arguments), daemon=True)
        for rank in range(size)
    ]
    with running(processes):
        for rank, process in enumerate(processes):
            process.join(HANGS)
            assert process.exitcode == 0, f"rank {rank}: {process.exitcode}"
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def _rank(rank: int, size: int, folder: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    world = World(rank, size, [CPU] * size, [CPU], False, size)
    torch.save(function(world, *arguments), folder / f"{rank}.pt")
    dist.destroy_process_group()
