"""Attention over packed sequences, with dropout of the probabilities."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from bertfast._native import native
from bertfast.ops import has_kernels
from bertfast.ops.dropout import PLACES_PER_SITE, dropout_mask_twin, widened
from bertfast.ops.op import op


def attention(
    query: Tensor,
    key_value: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen: int,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
) -> Tensor:
    """`dropout(softmax(q k^T / sqrt(head_dim))) v`, for each sequence and head alone.

    Query i's probability of its sequence's key j falls as column j does in `bertfast.ops.dropout.dropout`, in the row
    with key `row_keys[i]` and at place `256 * site + head`.

    Args:
        query: (query tokens, heads, head_dim), float32 or bfloat16, packed.
        key_value: (tokens, 2, heads, head_dim), packed: `[:, 0]` keys, `[:, 1]` values.
        cu_seqlens_q: (batch + 1,) int32; sequence b's queries are rows `cu_seqlens_q[b]` up to the next.
        cu_seqlens_k: (batch + 1,) int32, the same for keys. A sequence without keys has no queries.
        max_seqlen: no sequence has more queries, or more keys.
        row_keys: (query tokens,) int64.
        p: share of the probabilities that falls, in [0, 1).

    Returns: like `query`.
    """
    if has_kernels(query.device, "attention"):
        arguments = (query, key_value, cu_seqlens_q, cu_seqlens_k, max_seqlen, row_keys, p, seed, site)
        return cast(Tensor, _attention(*arguments)[0])
    return attention_twin(query, key_value, cu_seqlens_q, cu_seqlens_k, max_seqlen, row_keys, p, seed, site)


@op("attention")
def _attention(
    query: Tensor,
    key_value: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen: int,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
) -> tuple[Tensor, Tensor]:
    """The result, and (query tokens, heads) log-sum-exps, from which the backward pass rebuilds the probabilities."""
    return attend(query, key_value, cu_seqlens_q, cu_seqlens_k, max_seqlen, row_keys, p, seed, site)


def attend(
    query: Tensor, key_value: Tensor, *rest: Any, biases: tuple[Tensor | None, ...] = ()
) -> tuple[Tensor, Tensor]:
    """The op; `biases`: what queries, and keys and values, lack (see bertfast.ops.linear)."""
    query, key_value = query.contiguous(), key_value.contiguous()
    out = torch.empty_like(query)
    log_sum_exp = query.new_empty(query.shape[:2], dtype=torch.float32)
    with torch.cuda.device_of(query):
        native.attention(query, key_value, *rest, out, log_sum_exp, *biases)
    return out, log_sum_exp


@_attention.register_fake
def _(query: Tensor, key_value: Tensor, *sequences: Any) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), query.new_empty(query.shape[:2], dtype=torch.float32)


@op("attention_backward")
def _attention_backward(
    grad: Tensor,
    query: Tensor,
    key_value: Tensor,
    log_sum_exp: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen: int,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
) -> tuple[Tensor, Tensor]:
    return attend_backward(
        grad, query, key_value, log_sum_exp, cu_seqlens_q, cu_seqlens_k, max_seqlen, row_keys, p, seed, site
    )


def attend_backward(
    grad: Tensor,
    query: Tensor,
    key_value: Tensor,
    log_sum_exp: Tensor,
    *rest: Any,
    biases: tuple[Tensor | None, ...] = (),
) -> tuple[Tensor, Tensor]:
    """The op; `biases` as in `attend`."""
    grad, query, key_value = grad.contiguous(), query.contiguous(), key_value.contiguous()
    grad_query, grad_key_value = torch.empty_like(query), torch.empty_like(key_value)
    with torch.cuda.device_of(query):
        native.attention_backward(grad, query, key_value, log_sum_exp, *rest, grad_query, grad_key_value, *biases)
    return grad_query, grad_key_value


@_attention_backward.register_fake
def _(grad: Tensor, query: Tensor, key_value: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), key_value.new_empty(key_value.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key_value, cu_seqlens_q, cu_seqlens_k, ctx.max_seqlen, row_keys, *ctx.rule = inputs
    _, log_sum_exp = output
    ctx.mark_non_differentiable(log_sum_exp)
    ctx.save_for_backward(query, key_value, log_sum_exp, cu_seqlens_q, cu_seqlens_k, row_keys)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, row_keys = ctx.saved_tensors
    grads = _attention_backward(grad.contiguous(), *tensors, ctx.max_seqlen, row_keys, *ctx.rule)
    return *grads, None, None, None, None, None, None, None


_attention.register_autograd(_backward, setup_context=_setup_context)


def attention_twin(
    query: Tensor,
    key_value: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen: int,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
) -> Tensor:
    """`attention` in plain torch: padded; products in the inputs' type, softmax in float32."""
    _, heads, head_dim = query.shape
    batch = cu_seqlens_q.shape[0] - 1
    query_slot = _padded_slots(cu_seqlens_q, query.shape[0], max_seqlen)
    key_slot = _padded_slots(cu_seqlens_k, key_value.shape[0], max_seqlen)

    def pad(packed: Tensor, slot: Tensor) -> Tensor:
        padded = packed.new_zeros((batch * max_seqlen, *packed.shape[1:])).index_copy(0, slot, packed)
        return padded.view(batch, max_seqlen, *packed.shape[1:])

    q = pad(query, query_slot).transpose(1, 2)
    k, v = pad(key_value, key_slot).permute(2, 0, 3, 1, 4).unbind()
    lengths = cu_seqlens_k[1:] - cu_seqlens_k[:-1]
    is_padding = torch.arange(max_seqlen, device=query.device) >= lengths[:, None]
    scores = widened(q @ k.transpose(2, 3)) / head_dim**0.5
    # The lowest finite number: a padded query without keys gets no NaN, which would reach gradients.
    scores = scores.masked_fill(is_padding[:, None, None, :], torch.finfo(scores.dtype).min)
    probabilities = scores.softmax(dim=3)
    if p > 0:
        places = range(PLACES_PER_SITE * site, PLACES_PER_SITE * site + heads)
        kept = torch.stack([dropout_mask_twin(row_keys, max_seqlen, p, seed, place) for place in places], dim=1)
        probabilities = pad(kept, query_slot).transpose(1, 2) * (probabilities * (1.0 / (1.0 - p)))
    out: Tensor = probabilities.to(query.dtype) @ v
    return out.transpose(1, 2).reshape(batch * max_seqlen, heads, head_dim).index_select(0, query_slot)


def _padded_slots(cu_seqlens: Tensor, tokens: int, max_seqlen: int) -> Tensor:
    """(tokens,) int64: where each packed token stands in the flattened (batch, max_seqlen)."""
    token = torch.arange(tokens, dtype=cu_seqlens.dtype, device=cu_seqlens.device)
    sequence = torch.searchsorted(cu_seqlens, token, right=True) - 1
    return sequence * max_seqlen + token - cu_seqlens[sequence]
