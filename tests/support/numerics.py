"""Errors against float64, and how much of them is allowed: a small multiple of torch's own in the same type."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

DTYPES = [torch.float32, torch.bfloat16]


def run(function: Callable[..., Tensor], leaves: Sequence[Tensor], grad: Tensor) -> list[Tensor]:
    """The result of `function(*leaves)` and the gradients of its leaves, for the upstream gradient `grad`."""
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype), materialize_grads=True)]


def doubled(leaves: Sequence[Tensor]) -> list[Tensor]:
    return [leaf.detach().double() for leaf in leaves]


def assert_as_exact(
    ours: list[Tensor], torchs: list[Tensor], truth: list[Tensor], terms: int = 1, scale: float = 0.0
) -> None:
    """Largest errors: float32 within 4 times torch's, bfloat16 within twice, and a few roundings of float32.

    `terms`: how many numbers stand in one sum that the results come from. A float32 sum of n errs by about sqrt(n)
    roundings, whose order is the processor's; torch's own may be exact by luck. `scale`: the size of these numbers,
    where their sum may be 0.
    """
    for number, (a, b, exact) in enumerate(zip(ours, torchs, truth, strict=True)):
        assert a.dtype == b.dtype
        assert a.shape == exact.shape
        if exact.numel() == 0:
            continue
        error, torchs_error = ((each.double() - exact).abs().max().item() for each in (a, b))
        factor = 2 if a.dtype == torch.bfloat16 else 4
        size = max(scale, exact.abs().max().item())
        roundings = (3 + terms**0.5) * torch.finfo(torch.float32).eps * size
        allowed = factor * torchs_error + roundings
        assert error <= allowed, f"result {number}: error {error}, torch's {torchs_error}"


def assert_equal(ours: list[Tensor], others: list[Tensor]) -> None:
    """Bit for bit."""
    for a, b in zip(ours, others, strict=True):
        assert torch.equal(a, b)
