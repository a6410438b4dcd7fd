"""How much results differ, and how much they may."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.05}
"""By the dtype of the products: a few of its rounding errors. A wrong number is off by its own magnitude."""


class Difference(NamedTuple):
    """The largest elementwise difference, relative to the largest expected element."""

    what: str
    found: float
    allowed: float

    @property
    def is_small(self) -> bool:
        """Whether it is allowed. NaN is not."""
        return self.found <= self.allowed

    def __str__(self) -> str:
        return f"{self.what}: off by {self.found:.1e}, {self.allowed:.0e} is allowed"


def difference(what: str, found: Sequence[Tensor], expected: Sequence[Tensor], allowed: float) -> Difference:
    """The difference of the worst result, with its index. A NaN, or a wrong shape or dtype, counts as infinite."""
    errors = [_error(*pair) for pair in zip(found, expected, strict=True)]
    worst = max(range(len(errors)), key=lambda number: errors[number])
    return Difference(f"{what}, result {worst}", errors[worst], allowed)


def same_bits(what: str, found: Sequence[Tensor], expected: Sequence[Tensor]) -> Difference:
    """The number of elements that are not equal; a wrong shape counts as one or more."""
    different = sum(
        int((a != b).sum()) if a.shape == b.shape else max(1, b.numel()) for a, b in zip(found, expected, strict=True)
    )
    return Difference(f"{what}, elements that differ", different, 0)


def _error(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return math.inf
    if not found.numel():
        return 0.0
    error = (found.double() - expected.double()).abs().max() / expected.double().abs().max().clamp_min(1e-30)
    return float(error.nan_to_num(nan=math.inf))
