"""A linear layer in its input's type: float32 parameters, and float32 gradients of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`x weight^T + bias`: (rows, in) -> (rows, out), like x."""
    return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))


def linear_gradients(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Those of weight and bias, in float32; that of x is `grad @ weight`. For ops that are autograd's as a whole."""
    return torch.mm(grad.t(), x).float(), grad.sum(0).float()
