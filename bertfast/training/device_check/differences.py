"""How far results lie apart, and how far they may."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.05}
"""By the type that products are computed in: some roundings of it. A wrong number is off by its own size."""


class Difference(NamedTuple):
    """The greatest difference of an element, in units of the greatest element that is expected."""

    what: str
    found: float
    allowed: float

    @property
    def is_small(self) -> bool:
        """Not where it is NaN."""
        return self.found <= self.allowed

    def __str__(self) -> str:
        return f"{self.what}: off by {self.found:.1e}, {self.allowed:.0e} is allowed"


def difference(what: str, found: Sequence[Tensor], expected: Sequence[Tensor], allowed: float) -> Difference:
    """Of the result that is farthest off, whose number is said. A NaN, or another shape or type, is infinitely far."""
    errors = [_error(*pair) for pair in zip(found, expected, strict=True)]
    worst = max(range(len(errors)), key=lambda number: errors[number])
    return Difference(f"{what}, result {worst}", errors[worst], allowed)


def same_bits(what: str, found: Sequence[Tensor], expected: Sequence[Tensor]) -> Difference:
    """0 where all results are equal, bit for bit; else the number of elements that are not."""
    different = sum(
        int((a != b).sum()) if a.shape == b.shape else b.numel() for a, b in zip(found, expected, strict=True)
    )
    return Difference(f"{what}, elements that differ", different, 0)


def _error(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return math.inf
    if not found.numel():
        return 0.0
    error = (found.double() - expected.double()).abs().max() / expected.double().abs().max().clamp_min(1e-30)
    return float(error.nan_to_num(nan=math.inf))
