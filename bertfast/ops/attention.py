"""Attention over packed sequences, with dropout of the probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from bertfast._native import native
from bertfast.ops import has_kernels, reference
from bertfast.ops.arguments import Dropout, Lengths
from bertfast.ops.op import op


def attention(query: Tensor, key_value: Tensor, lengths: Lengths, dropout: Dropout) -> Tensor:
    """`dropout(softmax(q k^T / sqrt(head_dim))) v`, separately for each sequence and head.

    The probability that query i gives key j of its sequence is dropped exactly as column j of the row with key
    `row_keys[i]`, at the place `256 * site + head` (`reference.dropout_mask`).

    Args:
        query: (query tokens, heads, head_dim), float32 or bfloat16, packed.
        key_value: (tokens, 2, heads, head_dim), packed: `[:, 0]` keys, `[:, 1]` values.
        lengths: of the sequences.
        dropout: of the probabilities; a key for each query.

    Returns: like `query`.
    """
    if has_kernels(query.device, "attention"):
        return cast(Tensor, _attention(query, key_value, lengths, dropout)[0])
    return reference.attention(query, key_value, lengths, dropout)


@op("attention")
def _attention(
    query: Tensor,
    key_value: Tensor,
    lengths: Lengths,
    dropout: Dropout,
    *,
    query_bias: Tensor | None = None,
    key_value_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The result, and (query tokens, heads) log-sum-exps, from which the backward pass rebuilds the probabilities.

    `query_bias`, `key_value_bias`: added to the inputs first; see `bertfast.ops.linear.linear_deferring_bias`.
    """
    query, key_value = query.contiguous(), key_value.contiguous()
    out = torch.empty_like(query)
    log_sum_exp = query.new_empty(query.shape[:2], dtype=torch.float32)
    with torch.cuda.device_of(query):
        native.attention(query, key_value, *lengths, *dropout, out, log_sum_exp, query_bias, key_value_bias)
    return out, log_sum_exp


@_attention.register_fake
def _(query: Tensor, key_value: Tensor, lengths: Lengths, dropout: Dropout) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), query.new_empty(query.shape[:2], dtype=torch.float32)


@op("attention_backward")
def _attention_backward(
    grad: Tensor,
    query: Tensor,
    key_value: Tensor,
    log_sum_exp: Tensor,
    lengths: Lengths,
    dropout: Dropout,
    *,
    query_bias: Tensor | None = None,
    key_value_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    grad, query, key_value = grad.contiguous(), query.contiguous(), key_value.contiguous()
    grads = (torch.empty_like(query), torch.empty_like(key_value))
    with torch.cuda.device_of(query):
        native.attention_backward(
            grad, query, key_value, log_sum_exp, *lengths, *dropout, *grads, query_bias, key_value_bias
        )
    return grads


_attention_backward.returns_like(lambda grad, query, key_value, *_: (query, key_value))


def _save(arguments: Sequence[Any], result: tuple[Tensor, Tensor]) -> Sequence[Any]:
    query, key_value, lengths, dropout = arguments
    _, log_sum_exp = result
    return query, key_value, log_sum_exp, lengths, dropout


def _backward(saved: Sequence[Any], grad: Tensor) -> Sequence[Any]:
    return *_attention_backward(grad, *saved), None, None


_attention.register_autograd(_save, _backward)
