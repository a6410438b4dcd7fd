"""A run's devices, ranks and precision."""

from __future__ import annotations

import logging
import os
from typing import NamedTuple

import torch

from bertfast import torchrun
from bertfast._native import native
from bertfast.config import EncodeConfig, TrainConfig
from bertfast.errors import InputError

logger = logging.getLogger(__name__)

# The number of shards with --deterministic, and so the most workers that can share a batch. Few machines have more.
SHARDS = 8

# The fewest tokens of a shard in a run that is deterministic by default. Such shards cost at most 5% of a step's time,
# shards of half the size up to 11% (docs/promises.md).
SHARD_TOKENS = 8192

# The oldest compute capability that csrc/cuda is compiled for (CMakeLists.txt), and the oldest with bfloat16.
OLDEST_CAPABILITY = (7, 5)
OLDEST_WITH_BFLOAT16 = (8, 0)


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


def choose_devices(config: TrainConfig) -> list[torch.device]:
    """The devices that `config.device` and `config.gpus` name.

    Without CUDA, `config.gpus` is the number of CPU workers. Raises InputError if CUDA is requested and absent, or if
    there are fewer GPUs than requested.
    """
    if _uses_cuda(config):
        visible = torch.cuda.device_count()
        if config.gpus > visible:
            names = ", ".join(torch.cuda.get_device_name(i) for i in range(visible))
            raise InputError(f"--gpus {config.gpus} asks for more than the {visible} visible here ({names})")
        devices = [torch.device("cuda", index) for index in range(config.gpus or visible)]
    else:
        if config.gpus > (os.cpu_count() or 1):
            raise InputError(f"--gpus {config.gpus} asks for more CPU workers than the {os.cpu_count()} cores here")
        devices = [torch.device("cpu")] * max(1, config.gpus)
    if config.parallel == "dp" and len(devices) > 1 and devices[0].type == "cpu":
        raise InputError("--parallel dp shares one process between GPUs; for several CPU workers use --parallel ddp")
    local = 1 if config.parallel == "ddp" else len(devices)
    make_world(config, devices, devices[:local])  # raises any InputError before the work starts
    return devices


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
    most = min(SHARDS, _power_of_two(config.batch_size))
    if not config.deterministic:
        most = min(most, _power_of_two(config.batch_size * (config.short_len or config.max_len) // SHARD_TOKENS))
    shards = config.shards or most
    obstacle = None
    if local > 1:
        obstacle = "DataParallel sums in no fixed order: use --parallel ddp"
    elif shards & (shards - 1):
        obstacle = f"--shards must be a power of two, not {shards}"
    elif size & (size - 1) or size > shards:
        obstacle = f"{size} workers can't share {shards} shards evenly: start a power of two, {shards} at most"
    if config.compile and local > 1:
        raise InputError("--compile: DataParallel's replicas are not compiled: use --parallel ddp, or leave it out")
    if config.deterministic and obstacle:
        raise InputError(f"--deterministic: {obstacle} (or give --no-deterministic)")
    cheap = device.type == "cpu" and torch.get_num_threads() <= max(1, shards // size)
    if config.deterministic or (config.deterministic is None and cheap and not obstacle):
        return True, shards
    return False, max(config.shards, size * local)


def why_not_deterministic(config: TrainConfig, world: World) -> str | None:
    """Why a run on a CPU is not deterministic by default; None if it is, or if the configuration decides."""
    if config.deterministic is not None or world.deterministic or world.device.type != "cpu":
        return None
    why = f"{world.size} workers can't share shards evenly"
    if world.size & (world.size - 1) == 0:
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


def log_choice(config: TrainConfig, devices: list[torch.device]) -> None:
    """Logs a choice of devices that may surprise the user."""
    if devices[0].type == "cpu" and config.device != "cpu" and torch.cuda.is_available():
        logger.warning("the GPU stays idle: %s", _why_not_cuda())
    if devices[0].type == "cpu" and len(devices) > 1:
        logger.info("no CUDA device in use: --gpus %s is %s CPU worker processes over gloo", config.gpus, len(devices))


def _uses_cuda(config: TrainConfig) -> bool:
    """Whether the run uses CUDA: torch sees a device, and our kernels were built with CUDA."""
    if config.device == "cpu":
        return False
    why_not = _why_not_cuda()
    if why_not and config.device == "cuda":
        raise InputError(f"--device cuda: {why_not}, or use --device cpu")
    return why_not is None


def _why_not_cuda() -> str | None:
    if not torch.cuda.is_available():
        return "torch sees no CUDA device; install a CUDA build of torch"
    if not native.has_cuda:
        return "bertfast was built without CUDA kernels; put nvcc on the PATH and install it again"
    return None


def choose_precision(config: TrainConfig | EncodeConfig, device: torch.device) -> torch.dtype:
    """The dtype of activations and matrix products: bf16 only if requested or native to device and torch.

    Raises InputError if bf16 is requested on a GPU without it.
    """
    if config.precision == "bf16" and device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < OLDEST_WITH_BFLOAT16:
            name = torch.cuda.get_device_name(device)
            raise InputError(f"--precision bf16: {name} has no bfloat16, give fp32, or leave it out")
    if config.precision != "auto":
        return torch.bfloat16 if config.precision == "bf16" else torch.float32
    if device.type == "cuda":
        native_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # torch's fast products in bfloat16 are oneDNN's, which its builds for Macs lack
        native_bf16 = native.cpu_has_bf16() and torch.backends.mkldnn.is_available()
    return torch.bfloat16 if native_bf16 else torch.float32


def torchrun_world(config: TrainConfig) -> World:
    """This process's place in the group that torchrun's environment describes."""
    rank, size = torchrun.rank(), torchrun.world_size()
    local_rank, local_size = torchrun.local_rank(), torchrun.local_world_size()
    on_cuda = _uses_cuda(config)
    if on_cuda and local_rank >= torch.cuda.device_count():
        raise InputError(f"{local_size} processes share {torch.cuda.device_count()} GPUs: start one process a GPU")
    devices = [torch.device("cuda", i % local_size) if on_cuda else torch.device("cpu") for i in range(size)]
    own = torch.device("cuda", local_rank) if on_cuda else torch.device("cpu")
    if on_cuda:
        torch.cuda.set_device(own)
    elif "OMP_NUM_THREADS" not in os.environ:  # if set, it is already one process's share
        torch.set_num_threads(max(1, torch.get_num_threads() // local_size))
    return make_world(config, devices, [own], rank)


def describe(world: World, dtype: torch.dtype) -> str:
    """One line: devices, threads, precision, order of sums, and on a GPU whether the step is a CUDA graph."""
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
    if world.device.type == "cuda":
        ways += (
            ", step in a CUDA graph" if world.captured else f", no CUDA graph ({_no_graph(world) or 'switched off'})"
        )
    return f"{where}, {ways}, {'bf16' if dtype == torch.bfloat16 else 'fp32'}"
