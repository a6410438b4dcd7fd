"""The end of each half of a layer: dropout, residual and LayerNorm in one pass."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from bertfast.ops.dropout import dropout_twin, widened


def dropout_add_layer_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
) -> Tensor:
    """`LayerNorm(dropout(x) + residual)`, computed in float32.

    Args:
        x, residual: (rows, hidden), float32 or bfloat16.
        weight, bias: (hidden,) float32.
        eps: added to the variance.
        row_keys, p, seed, site: see `bertfast.ops.dropout.dropout`.

    Returns: like `x`.
    """
    return dropout_add_layer_norm_twin(x, residual, weight, bias, eps, row_keys, p, seed, site)


def dropout_add_layer_norm_twin(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
) -> Tensor:
    """`dropout_add_layer_norm` in plain torch."""
    added = dropout_twin(widened(x), row_keys, p, seed, site) + residual
    return F.layer_norm(added, added.shape[1:], weight, bias, eps).to(x.dtype)
