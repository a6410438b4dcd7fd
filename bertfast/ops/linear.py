"""A linear layer inside an op: float32 parameters, products in the input's type."""

from __future__ import annotations

import torch
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`x weight^T + bias`: (rows, in) -> (rows, out)."""
    return torch.addmm(bias.to(x.dtype), x, weight.to(x.dtype).t())


def linear_gradients(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Those of weight and bias, in float32; that of x is `grad @ weight`."""
    return torch.mm(grad.t(), x).float(), grad.sum(0).float()
