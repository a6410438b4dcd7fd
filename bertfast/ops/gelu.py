"""The feed-forward network's activation, with the bias of the product before it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from bertfast.ops.dropout import widened


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """`gelu(x + bias)` with `gelu(u) = u (1 + erf(u / sqrt(2))) / 2`, computed in float32.

    Args:
        x: (rows, columns), float32 or bfloat16.
        bias: (columns,) float32.

    Returns: like `x`.
    """
    return bias_gelu_twin(x, bias)


def bias_gelu_twin(x: Tensor, bias: Tensor) -> Tensor:
    """`bias_gelu` in plain torch."""
    return F.gelu(widened(x) + bias).to(x.dtype)
