"""The ops the model runs on: one file an op, with its schema, fake, autograd and plain-torch twin."""

from __future__ import annotations

import torch

from bertfast._native import native

DEVICES: dict[str, tuple[str, ...]] = {
    "attention": ("cpu", "cuda"),
    "bias_gelu": ("cpu", "cuda"),
    "dropout": ("cpu", "cuda"),
    "dropout_add_layer_norm": ("cpu", "cuda"),
    "embedding_layer_norm": ("cpu", "cuda"),
    "feed_forward": ("cpu", "cuda"),
    "masked_lm_loss": ("cpu", "cuda"),
    "self_attention": ("cpu", "cuda"),
}
"""For each op, the types of device that it has a native kernel for; on others its plain-torch twin runs."""


def has_kernel(op: str, device: torch.device) -> bool:
    """Whether `op` runs a native kernel on `device`, rather than its twin."""
    return device.type in DEVICES[op] and (device.type != "cuda" or native.has_cuda)


def kernels(device: torch.device) -> dict[str, str]:
    """What each op runs on `device`: "native (avx512)", "native (cuda)", "plain torch"..."""
    kind = native.isa() if device.type == "cpu" else device.type
    return {op: f"native ({kind})" if has_kernel(op, device) else "plain torch" for op in DEVICES}
