"""The ops that the model runs on: one file an op, and their plain-torch twins in reference.py."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch

from bertfast._native import native
from bertfast.distributed.devices import OLDEST_CAPABILITY

DEVICES: tuple[str, ...] = ("cpu", "cuda")
"""The types of device that the ops have native kernels for. On others their plain-torch twins run."""

PARTS: dict[str, tuple[str, ...]] = {
    "bias_gelu": (),
    "attention": (),
    "dropout_add_layer_norm": (),
    "embedding_layer_norm": (),
    "self_attention": ("attention", "dropout_add_layer_norm"),
    "feed_forward": ("bias_gelu", "dropout_add_layer_norm"),
    "masked_lm_loss": (),
    "adam": (),
}
"""Every op that has a twin, by name, and the ops whose kernels it also launches."""

# The oldest compute capability of some ops: attention's tiles take 74 KiB of shared memory in float32, more than the 64
# of 7.5, where there is no bfloat16.
_OLDEST = {"attention": (8, 0), "self_attention": (8, 0)}

_twins: tuple[str, ...] = ()  # the ops that `use_twins` has set


def has_kernels(device: torch.device, op: str) -> bool:
    """Whether `op` runs its native kernels on `device`, rather than its twin."""
    if device.type not in DEVICES or op in _twins:
        return False
    if device.type != "cuda":
        return True
    return native.has_cuda and capability(device.index) >= _OLDEST.get(op, OLDEST_CAPABILITY)


def capability(index: int | None) -> tuple[int, int]:
    """A GPU's compute capability; without any GPU one that has everything, for tests.

    torch.compile takes its properties as constants, which `torch.cuda.get_device_capability` is not to it.
    """
    if not torch.cuda.is_available():
        return 99, 0
    properties = torch.cuda.get_device_properties(index)
    return properties.major, properties.minor


@contextlib.contextmanager
def use_twins(ops: Iterable[str]) -> Iterator[None]:
    """Within the context, these ops and those that launch their kernels run their twins on every device."""
    global _twins
    before = _twins
    _twins = with_dependents((*before, *ops))
    try:
        yield
    finally:
        _twins = before


def with_dependents(ops: Iterable[str]) -> tuple[str, ...]:
    """These ops, and those that launch their kernels, in the order of `PARTS`."""
    named = set(ops)
    return tuple(op for op, parts in PARTS.items() if op in named or named.intersection(parts))


def kernels(device: torch.device) -> str:
    """What the ops run on `device`: "native (avx512)", "native (cuda) but for adam", "plain torch"..."""
    native_ops = [op for op in PARTS if has_kernels(device, op)]
    if not native_ops:
        return "plain torch"
    kind = native.isa() if device.type == "cpu" else device.type
    others = [op for op in PARTS if op not in native_ops]
    return f"native ({kind})" + (f" but for {', '.join(others)}" if others else "")
