"""A process's place among a run's processes, and the order of their sums."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch

from bertfast.config import TrainConfig
from bertfast.errors import InputError

# The number of shards with --deterministic, if --shards gives none. Few machines have more cores or GPUs.
SHARDS = 8

# The fewest tokens of a shard in a run that is deterministic by default. Such shards cost at most 3% of a step's time,
# shards of half the size up to 10% (docs/training.md).
SHARD_TOKENS = 8192


class World(NamedTuple):
    """This process's place among the run's processes."""

    rank: int
    size: int
    devices: list[torch.device]  # all of the run's, in the order of the ranks
    local: list[torch.device]  # this process's own: one, or with DataParallel several
    deterministic: bool  # whether sums have the same order for any number of workers and threads
    shards: int  # the number of pieces that the batch is computed in
    captured: bool = False  # whether the step is a CUDA graph

    @property
    def device(self) -> torch.device:
        return self.local[0]


def make_world(config: TrainConfig, devices: list[torch.device], local: list[torch.device], rank: int = 0) -> World:
    """The world of `rank`, one of the `len(devices) // len(local)` processes that compute on `devices`."""
    size = len(devices) // len(local)
    world = World(rank, size, devices, local, *_choose_sums(config, size, len(local), local[0]))
    obstacle = _no_graph(world)
    if config.cuda_graph and obstacle:
        raise InputError(f"--cuda-graph: {obstacle} (or leave it out)")
    return world._replace(captured=not obstacle and config.cuda_graph is not False)


def _choose_sums(config: TrainConfig, size: int, local: int, device: torch.device) -> tuple[bool, int]:
    """Whether the run is deterministic, and its number of shards.

    By default, a run on a CPU, where the cost is known, is deterministic if that is possible, its shards are large
    enough and no core would be idle. Raises InputError if the batch can't be split as the configuration asks.
    """
    if config.batch_size < size * local:
        raise InputError(f"--batch-size {config.batch_size} can't be shared by {size * local} devices")
    shards = config.shards or _default_shards(config)
    obstacle = _no_tree(shards, size, local)
    if config.compile and local > 1:
        raise InputError("--compile: DataParallel's replicas are not compiled: use --parallel ddp, or leave it out")
    if config.deterministic and obstacle:
        raise InputError(f"--deterministic: {obstacle} (or give --no-deterministic)")
    cheap = device.type == "cpu" and torch.get_num_threads() <= max(1, shards // size)
    if config.deterministic or (config.deterministic is None and cheap and not obstacle):
        return True, shards
    pieces = max(config.shards, size * local)
    if pieces % (size * local):
        raise InputError(
            f"{size * local} devices can't share --shards {pieces} evenly: give a multiple of their number"
        )
    return False, pieces


def _default_shards(config: TrainConfig) -> int:
    """The number of shards of a deterministic run, if --shards gives none."""
    most = min(SHARDS, _power_of_two(config.batch_size))
    if config.deterministic:
        return most
    return min(most, _power_of_two(config.batch_size * (config.short_len or config.max_len) // SHARD_TOKENS))


def _no_tree(shards: int, size: int, local: int) -> str | None:
    """Why the shards' gradients can't be summed in one tree; None if they can."""
    if local > 1:
        return "DataParallel sums in no fixed order: use --parallel ddp"
    if shards & (shards - 1):
        return f"--shards must be a power of two, not {shards}"
    if size & (size - 1) or size > shards:
        return f"{size} workers can't share {shards} shards evenly: start a power of two, {shards} at most"
    return None


def why_not_deterministic(config: TrainConfig, world: World) -> str | None:
    """Why a run on a CPU is not deterministic by default; None if it is, or if the configuration decides."""
    if config.deterministic is not None or world.deterministic or world.device.type != "cpu":
        return None
    shards = config.shards or _default_shards(config)
    if config.shards or shards == _default_shards(dataclasses.replace(config, deterministic=True)):
        why = _no_tree(shards, world.size, len(world.local)) or f"there are more threads than shards ({shards})"
    elif world.size & (world.size - 1):
        why = f"{world.size} workers can't share shards evenly"
    else:
        why = f"shards of less than {SHARD_TOKENS:,} tokens cost more than 5% of a step's time"
    return f"not deterministic over workers and threads, since {why} (--deterministic, --shards)"


def _power_of_two(most: int) -> int:
    """The largest power of two that is at most `most`; at least 1."""
    return 1 << max(0, most.bit_length() - 1)


def _no_graph(world: World) -> str | None:
    """Why the step can't be captured as a CUDA graph; None if it can."""
    if world.device.type != "cuda":
        return "a CPU has none"
    if len(world.local) > 1:
        return "it holds the step of one GPU, give --parallel ddp"
    if world.deterministic:
        return "it holds a GPU's batch in one piece, give --no-deterministic"
    if world.shards > world.size:
        return f"it holds a GPU's batch in one piece, give --shards {world.size}"
    return None


def describe(world: World, dtype: torch.dtype) -> str:
    """One line: devices, threads, order of sums, and precision."""
    count = len(world.devices)
    if world.device.type == "cuda":
        where = f"{count} x {torch.cuda.get_device_name(world.device)}"
    else:
        threads = torch.get_num_threads()
        where = f"{count} CPU process{'es' * (count > 1)} with {threads} thread{'s' * (threads > 1)}"
    ways = "DataParallel" if len(world.local) > 1 else "one process" if world.size == 1 else "DDP"
    if world.captured and world.size > 1:
        ways = "a process each, one all-reduce a step"
    elif world.deterministic:
        ways = f"deterministic over {world.shards} shards"
    elif world.shards > count:
        ways += f" in {world.shards} shards"
    return f"{where}, {ways}, {precision_name(dtype)}"


def describe_graph(world: World) -> str:
    """On a GPU, whether a step is a CUDA graph, as a part of a line; empty on a CPU."""
    if world.device.type != "cuda":
        return ""
    return ", step in a CUDA graph" if world.captured else f", no CUDA graph ({_no_graph(world) or 'switched off'})"


def precision_name(dtype: torch.dtype) -> str:
    """How --precision calls a type."""
    return "bf16" if dtype == torch.bfloat16 else "fp32"
