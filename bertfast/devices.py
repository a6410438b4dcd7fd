"""Where a run computes, and in what arithmetic: devices, ranks, precision."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist

from bertfast._native import native
from bertfast.config import TrainConfig
from bertfast.errors import InputError

Say = Callable[[str], None]


class World(NamedTuple):
    """This process's place among the run's processes."""

    rank: int
    size: int
    devices: list[torch.device]  # all of the run's, in the order of the ranks
    local: list[torch.device]  # this process's own: one, or with DataParallel several

    @property
    def device(self) -> torch.device:
        return self.local[0]


def choose_devices(config: TrainConfig, say: Say) -> list[torch.device]:
    """The devices that `config.device` and `config.gpus` name.

    Asking for several where there is no CUDA device at all gives that many CPU workers, and says so. Raises InputError
    where CUDA is asked for and absent, and where fewer GPUs are there than asked.
    """
    visible = torch.cuda.device_count()
    if config.device == "cuda" and not visible:
        raise InputError("--device cuda: torch sees no CUDA device; use --device cpu, or install a CUDA build of torch")
    if config.device == "cpu" or not visible:
        if config.gpus > 1:
            say(f"no CUDA device in use: --gpus {config.gpus} runs as {config.gpus} CPU worker processes over gloo")
        return [torch.device("cpu")] * max(1, config.gpus)
    if config.gpus > visible:
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(visible))
        raise InputError(f"--gpus {config.gpus} asks for more than the {visible} visible here ({names})")
    return [torch.device("cuda", index) for index in range(config.gpus or visible)]


def choose_precision(config: TrainConfig, device: torch.device) -> torch.dtype:
    """The dtype of activations and matrix products: bf16 only where it is the device's own, unless asked for."""
    if config.precision != "auto":
        return torch.bfloat16 if config.precision == "bf16" else torch.float32
    if device.type == "cuda":
        native_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native_bf16 = native.cpu_has_bf16()
    return torch.bfloat16 if native_bf16 else torch.float32


def under_torchrun() -> bool:
    """Whether torchrun (or a launcher with its environment) started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def leads() -> bool:
    """Whether this process speaks for the run: rank 0, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def join_world(devices: list[torch.device]) -> World:
    """This process's rank in the group that torchrun's environment describes; joins the group."""
    rank, size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    device = devices[local_rank]
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ["LOCAL_WORLD_SIZE"])))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(rank, size, devices, [device])


def describe(world: World, dtype: torch.dtype) -> str:
    """One line: devices, threads, precision."""
    device = world.device
    if device.type == "cuda":
        where = f"{len(world.devices)} x {torch.cuda.get_device_name(device)}"
    else:
        where = (
            f"{len(world.devices)} CPU process{'es' * (len(world.devices) > 1)} with {torch.get_num_threads()} threads"
        )
    ways = "DDP" if world.size > 1 else "DataParallel" if len(world.local) > 1 else "one process"
    return f"{where}, {ways}, {'bf16' if dtype == torch.bfloat16 else 'fp32'}"
