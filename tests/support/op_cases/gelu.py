"""Arguments of bias_gelu."""

from __future__ import annotations

import torch
from torch import Tensor

SHAPES = [(1, 1), (3, 33), (130, 96), (65, 64), (300, 511), (0, 8), (3, 0)]


def inputs(rows: int, columns: int, dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(rows * 10007 + columns)
    x = 3 * torch.randn(rows, columns, generator=generator)
    bias, grad = torch.randn(columns, generator=generator), torch.randn(rows, columns, generator=generator)
    return [x.to(dtype), bias], grad.to(dtype)
