"""The devices of a run, by its settings or by torchrun, and the precision that they compute in."""

from __future__ import annotations

import logging
import os

import torch

from bertfast import torchrun
from bertfast._native import native
from bertfast.config import EncodeConfig, TrainConfig
from bertfast.distributed.threads import set_threads
from bertfast.distributed.world import World, make_world
from bertfast.errors import InputError

logger = logging.getLogger(__name__)

# The oldest compute capability that csrc/cuda is compiled for (CMakeLists.txt), and the oldest with bfloat16.
OLDEST_CAPABILITY = (7, 5)
OLDEST_WITH_BFLOAT16 = (8, 0)


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


def torchrun_world(config: TrainConfig) -> World:
    """This process's place in the group that torchrun's environment describes."""
    rank, size = torchrun.rank(), torchrun.world_size()
    local_rank, local_size = torchrun.local_rank(), torchrun.local_world_size()
    if config.gpus not in (0, size) or config.parallel == "dp":
        asked = f"--gpus {config.gpus}" if config.parallel == "ddp" else "--parallel dp"
        raise InputError(f"{asked}: torchrun has started {size} processes, one for each device: leave it out")
    on_cuda = _uses_cuda(config)
    if on_cuda and local_rank >= torch.cuda.device_count():
        raise InputError(f"{local_size} processes share {torch.cuda.device_count()} GPUs: start one process a GPU")
    devices = [torch.device("cuda", i % local_size) if on_cuda else torch.device("cpu") for i in range(size)]
    own = torch.device("cuda", local_rank) if on_cuda else torch.device("cpu")
    if on_cuda:
        torch.cuda.set_device(own)
    elif "OMP_NUM_THREADS" not in os.environ:  # if set, it is already one process's share
        set_threads(max(1, torch.get_num_threads() // local_size))
    return make_world(config, devices, [own], rank)


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
    if config.precision == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    if config.precision == "bf16" and device.type == "cuda" and not has_bfloat16(device):
        name = torch.cuda.get_device_name(device)
        raise InputError(f"--precision bf16: {name} has no bfloat16, give fp32, or leave it out")
    return torch.bfloat16 if config.precision == "bf16" else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Whether both the device and torch multiply bfloat16 fast."""
    if device.type == "cuda":
        return bool(torch.cuda.get_device_capability(device) >= OLDEST_WITH_BFLOAT16)
    # torch's fast products in bfloat16 are oneDNN's, which its builds for Macs lack.
    return bool(native.cpu_has_bf16()) and torch.backends.mkldnn.is_available()
