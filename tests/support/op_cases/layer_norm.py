"""Arguments of dropout_add_layer_norm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bertfast.ops.arguments import Dropout, Norm

SHAPES = [(1, 2), (3, 33), (130, 96), (65, 64), (300, 511), (2, 1500), (0, 8)]


def inputs(rows: int, hidden: int, dtype: torch.dtype) -> tuple[list[Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows * 10007 + hidden)
    x, residual, grad = torch.randn(3, rows, hidden, generator=generator)
    # A mean far from zero: a variance from E[x^2] - E[x]^2 would be wrong.
    residual = residual + 20
    weight, bias = torch.randn(2, hidden, generator=generator)
    keys = torch.randint(0, 2**60, (rows,), generator=generator)
    return [x.to(dtype), residual.to(dtype), weight, bias], keys, grad.to(dtype)


def of(function: Callable[..., Tensor], keys: Tensor, p: float) -> Callable[..., Tensor]:
    return lambda x, residual, weight, bias: function(x, residual, Norm(weight, bias, 1e-12), Dropout(keys, p, 7, 3))
