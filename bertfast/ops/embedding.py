"""The embedding layer in one pass: three look-ups, LayerNorm and dropout."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bertfast.ops.dropout import dropout_twin


def embedding_layer_norm(
    input_ids: Tensor,
    token_type_ids: Tensor,
    position_ids: Tensor,
    word_weight: Tensor,
    type_weight: Tensor,
    position_weight: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
    dtype: torch.dtype,
) -> Tensor:
    """`dropout(LayerNorm(word[input_ids] + type[token_type_ids] + position[position_ids]))`, in float32.

    Args:
        input_ids, token_type_ids, position_ids: (tokens,) int64.
        word_weight, type_weight, position_weight: (entries, hidden) float32. Their gradients are dense.
        weight, bias: (hidden,) float32.
        eps: added to the variance.
        row_keys, p, seed, site: see `bertfast.ops.dropout.dropout`.
        dtype: the result's: float32 or bfloat16.

    Returns: (tokens, hidden) in `dtype`.
    """
    return embedding_layer_norm_twin(
        input_ids,
        token_type_ids,
        position_ids,
        word_weight,
        type_weight,
        position_weight,
        weight,
        bias,
        eps,
        row_keys,
        p,
        seed,
        site,
        dtype,
    )


def embedding_layer_norm_twin(
    input_ids: Tensor,
    token_type_ids: Tensor,
    position_ids: Tensor,
    word_weight: Tensor,
    type_weight: Tensor,
    position_weight: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
    dtype: torch.dtype,
) -> Tensor:
    """`embedding_layer_norm` in plain torch."""
    added = (
        F.embedding(input_ids, word_weight)
        + F.embedding(token_type_ids, type_weight)
        + F.embedding(position_ids, position_weight)
    )
    normal = F.layer_norm(added, added.shape[1:], weight, bias, eps)
    return dropout_twin(normal, row_keys, p, seed, site).to(dtype)
