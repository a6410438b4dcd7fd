"""The devices and the precision that a run chooses, and its messages about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.deterministic
from support.small_run import CPU

from bertfast._native import native
from bertfast.config import EncodeConfig, TrainConfig
from bertfast.distributed import devices as devices_module
from bertfast.distributed.devices import choose_devices, choose_precision, log_choice, torchrun_world
from bertfast.distributed.world import describe, make_world
from bertfast.errors import InputError


@pytest.mark.parametrize("processor", [True, False])
@pytest.mark.parametrize("torch_has_onednn", [True, False])
def test_auto_is_bf16_where_processor_and_torch_compute_it(
    monkeypatch: pytest.MonkeyPatch, processor: bool, torch_has_onednn: bool
) -> None:
    monkeypatch.setattr(devices_module.native, "cpu_has_bf16", lambda: processor)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: torch_has_onednn)
    computes_bf16 = processor and torch_has_onednn
    world = make_world(TrainConfig(), [CPU], [CPU])
    for config in (TrainConfig(precision="auto"), EncodeConfig(precision="auto")):
        dtype = choose_precision(config, CPU)
        assert dtype == (torch.bfloat16 if computes_bf16 else torch.float32)
        assert describe(world, dtype).endswith("bf16" if computes_bf16 else "fp32")
    assert choose_precision(TrainConfig(precision="fp32"), CPU) == torch.float32
    assert choose_precision(TrainConfig(precision="bf16"), CPU) == torch.bfloat16


def test_the_processor_is_asked() -> None:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        pytest.skip("the system doesn't list the processor's instructions")
    flags = set(cpuinfo.read_text().split())
    assert native.cpu_has_bf16() == bool({"avx512_bf16", "bf16"} & flags)  # an x86's, an ARM's
    assert native.cpu_is_intel() == ("GenuineIntel" in flags)
    assert (native.isa() == "amx") <= ("amx_bf16" in flags)
    assert (native.isa() == "neon_bf16") <= ("bf16" in flags)


def test_instruction_sets_are_listed() -> None:
    """The best last, and each can be chosen; others can't."""
    best = native.isa()
    assert native.isas()[-1] == best
    for name in (*native.isas(), best):
        native.use_isa(name)
        assert native.isa() == name
    for name in ("avx2", "neon", "mmx"):
        if name not in native.isas():
            with pytest.raises(ValueError, match=name):
                native.use_isa(name)


def test_a_gpu_without_kernels_is_reported(said, monkeypatch):
    """Torch sees a GPU, but bertfast was built without nvcc."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices_module.native, "has_cuda", False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    devices = choose_devices(TrainConfig())
    assert devices == [CPU]
    log_choice(TrainConfig(), devices)
    assert said[0].startswith("warning: the GPU stays idle: ")
    with pytest.raises(InputError, match="--device cuda: "):
        choose_devices(TrainConfig(device="cuda"))


@pytest.mark.parametrize(("settings", "flag"), [({"gpus": 4}, "--gpus 4"), ({"parallel": "dp"}, "--parallel dp")])
def test_torchrun_decides_the_number_of_processes(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], flag: str
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for gpus in (0, 2):
        assert torchrun_world(TrainConfig(device="cpu", gpus=gpus)).size == 2
    with pytest.raises(InputError, match=f"{flag}: torchrun has started 2 processes, one for each device: leave it"):
        torchrun_world(TrainConfig(device="cpu", **settings))


def test_bf16_is_refused_where_the_gpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(InputError, match="--precision bf16: Tesla T4 has no bfloat16, give fp32"):
        choose_precision(TrainConfig(precision="bf16"), torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert choose_precision(TrainConfig(precision="bf16"), torch.device("cuda", 0)) == torch.bfloat16


def test_precision_is_chosen_for_the_device_in_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for the current one: here the first GPU."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0) if device.index == 0 else (7, 5))
    chosen = [choose_precision(TrainConfig(), torch.device("cuda", number)) for number in (0, 1)]
    assert chosen == [torch.bfloat16, torch.float32]
