"""The ops that the model runs on: one file an op, and their plain-torch twins in reference.py."""

from __future__ import annotations

import torch

from bertfast._native import native

DEVICES: tuple[str, ...] = ("cpu", "cuda")
"""The types of device that the ops have native kernels for. On others their plain-torch twins run."""


def has_kernels(device: torch.device) -> bool:
    """Whether the ops run native kernels on `device`, rather than their twins."""
    return device.type in DEVICES and (device.type != "cuda" or native.has_cuda)


def kernels(device: torch.device) -> str:
    """What the ops run on `device`: "native (avx512)", "native (cuda)", "plain torch"..."""
    kind = native.isa() if device.type == "cpu" else device.type
    return f"native ({kind})" if has_kernels(device) else "plain torch"
