"""The first half of a layer as one op: projections, attention, dropout, residual, LayerNorm (why: feed_forward.py)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from bertfast.ops import has_kernels
from bertfast.ops.attention import attend, attend_backward, attention
from bertfast.ops.layer_norm import drop_add_normalize, drop_add_normalize_backward, dropout_add_layer_norm
from bertfast.ops.linear import in_type, late_bias, linear, linear_but_bias, linear_gradients
from bertfast.ops.op import op
from bertfast.ops.product import matrix_product


def self_attention(
    x: Tensor,
    rows: Tensor | None,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen: int,
    query_weight: Tensor,
    query_bias: Tensor,
    key_value_weight: Tensor,
    key_value_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    heads: int,
    row_keys: Tensor,
    p_attention: float,
    p: float,
    seed: int,
    site: int,
) -> Tensor:
    """`LayerNorm(dropout(attention(y Wq^T + bq, x Wkv^T + bkv) Wo^T + bo) + y)`, with y = x, or x[rows].

    Args:
        x: (tokens, hidden), float32 or bfloat16, packed; products are computed in its type.
        rows: (n,) int64, the tokens that are queries; None for all.
        cu_seqlens_q: (batch + 1,) int32, each sequence's share of `rows`, or of the tokens.
        cu_seqlens_k, max_seqlen: see `attention`.
        query_weight, query_bias, out_weight, out_bias: (hidden, hidden) and (hidden,) float32.
        key_value_weight, key_value_bias: (2 hidden, hidden) and (2 hidden,) float32.
        norm_weight, norm_bias, eps: see `dropout_add_layer_norm`.
        row_keys: int64, one for each row of y.
        p_attention, p: shares of the probabilities and of the last product that fall.
        seed, site: the probabilities' draws are at `site`, the product's at `site + 1`.

    Returns: like y.
    """
    parameters = (query_weight, query_bias, key_value_weight, key_value_bias, out_weight, out_bias)
    arguments = (*parameters, norm_weight, norm_bias, eps, heads, row_keys, p_attention, p, seed, site)
    if has_kernels(x.device, "self_attention"):
        return cast(Tensor, _self_attention(x, rows, cu_seqlens_q, cu_seqlens_k, max_seqlen, *arguments)[0])
    return self_attention_twin(x, rows, cu_seqlens_q, cu_seqlens_k, max_seqlen, *arguments)


@op("self_attention")
def _self_attention(
    x: Tensor,
    rows: Tensor | None,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen: int,
    query_weight: Tensor,
    query_bias: Tensor,
    key_value_weight: Tensor,
    key_value_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    heads: int,
    row_keys: Tensor,
    p_attention: float,
    p: float,
    seed: int,
    site: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The result, and what the backward pass reads: queries, keys and values, attention's two, the last product and
    LayerNorm's moments.
    """
    residual = x if rows is None else x.index_select(0, rows)
    query = linear_but_bias(residual, query_weight, query_bias).unflatten(1, (heads, -1))
    key_value = linear_but_bias(x, key_value_weight, key_value_bias).unflatten(1, (2, heads, -1))
    sequences = (cu_seqlens_q, cu_seqlens_k, max_seqlen)
    biases = (late_bias(query_bias), late_bias(key_value_bias))
    context, log_sum_exp = attend(query, key_value, *sequences, row_keys, p_attention, seed, site, biases=biases)
    projected = linear_but_bias(context.flatten(1), out_weight, out_bias)
    normal = (norm_weight, norm_bias, eps, row_keys, p, seed, site + 1)
    out, moments = drop_add_normalize(projected, residual, *normal, x_bias=late_bias(out_bias))
    return out, query, key_value, context, log_sum_exp, projected, moments


@_self_attention.register_fake
def _(
    x: Tensor,
    rows: Tensor | None,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen: int,
    query_weight: Tensor,
    *rest: Any,
) -> tuple[Tensor, ...]:
    heads = next(each for each in rest if isinstance(each, int))
    tokens, hidden = x.shape
    count, width = (tokens if rows is None else rows.shape[0]), hidden // heads
    query, key_value = x.new_empty(count, heads, width), x.new_empty(tokens, 2, heads, width)
    out, log_sum_exp = x.new_empty(count, hidden), query_weight.new_empty(count, heads)
    moments = query_weight.new_empty(count, 2)
    return out, query, key_value, torch.empty_like(query), log_sum_exp, torch.empty_like(out), moments


@op("self_attention_backward")
def _self_attention_backward(
    grad: Tensor,
    x: Tensor,
    rows: Tensor | None,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen: int,
    query_weight: Tensor,
    query_bias: Tensor,
    key_value_weight: Tensor,
    key_value_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    norm_weight: Tensor,
    query: Tensor,
    key_value: Tensor,
    context: Tensor,
    log_sum_exp: Tensor,
    projected: Tensor,
    moments: Tensor,
    row_keys: Tensor,
    p_attention: float,
    p: float,
    seed: int,
    site: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    residual = x if rows is None else x.index_select(0, rows)
    rule = (row_keys, p, seed, site + 1)
    normal = (projected, residual, norm_weight, moments, *rule)
    grads_of_norm = drop_add_normalize_backward(grad, *normal, x_bias=late_bias(out_bias))
    grad_projected, grad_residual, grad_norm_weight, grad_norm_bias = grads_of_norm
    grad_context = matrix_product(grad_projected, in_type(out_weight, x.dtype)).view_as(query)
    sequences = (cu_seqlens_q, cu_seqlens_k, max_seqlen)
    rule = (row_keys, p_attention, seed, site)
    biases = (late_bias(query_bias), late_bias(key_value_bias))
    grads = attend_backward(grad_context, query, key_value, log_sum_exp, *sequences, *rule, biases=biases)
    grad_query, grad_key_value = (each.flatten(1) for each in grads)
    grad_residual = matrix_product(grad_query, in_type(query_weight, x.dtype), add=grad_residual)
    key_value_weight = in_type(key_value_weight, x.dtype)
    if rows is None:
        grad_x = matrix_product(grad_key_value, key_value_weight, add=grad_residual)
    else:
        grad_x = matrix_product(grad_key_value, key_value_weight).index_add_(0, rows, grad_residual)
    grad_parameters = (
        *linear_gradients(grad_query, residual),
        *linear_gradients(grad_key_value, x),
        *linear_gradients(grad_projected, context.flatten(1)),
    )
    return grad_x, *grad_parameters, grad_norm_weight, grad_norm_bias


@_self_attention_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    rows: Tensor | None,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen: int,
    *rest: Tensor,
) -> tuple[Tensor, ...]:
    *parameters, norm_weight = rest[:7]
    return tuple(each.new_empty(each.shape) for each in (x, *parameters, norm_weight, norm_weight))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, rows, cu_seqlens_q, cu_seqlens_k, ctx.max_seqlen, *parameters = inputs
    *linear_and_norm, _, _, _, row_keys, p_attention, p, seed, site = parameters
    ctx.rule = (p_attention, p, seed, site)
    _, *intermediate = output
    ctx.mark_non_differentiable(*intermediate)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, rows, cu_seqlens_q, cu_seqlens_k, *linear_and_norm, *intermediate, row_keys)


def _backward(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    x, rows, cu_seqlens_q, cu_seqlens_k, *rest = ctx.saved_tensors
    sequences = (cu_seqlens_q, cu_seqlens_k, ctx.max_seqlen)
    grad_x, *grads = _self_attention_backward(grad.contiguous(), x, rows, *sequences, *rest, *ctx.rule)
    return grad_x, None, None, None, None, *grads, None, None, None, None, None, None, None


_self_attention.register_autograd(_backward, setup_context=_setup_context)


def self_attention_twin(
    x: Tensor,
    rows: Tensor | None,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen: int,
    query_weight: Tensor,
    query_bias: Tensor,
    key_value_weight: Tensor,
    key_value_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    heads: int,
    row_keys: Tensor,
    p_attention: float,
    p: float,
    seed: int,
    site: int,
) -> Tensor:
    """`self_attention` of its parts."""
    residual = x if rows is None else x[rows]
    query = linear(residual, query_weight, query_bias).unflatten(1, (heads, -1))
    key_value = linear(x, key_value_weight, key_value_bias).unflatten(1, (2, heads, -1))
    sequences = (cu_seqlens_q, cu_seqlens_k, max_seqlen)
    context = attention(query, key_value, *sequences, row_keys, p_attention, seed, site).flatten(1)
    projected = linear(context, out_weight, out_bias)
    return dropout_add_layer_norm(projected, residual, norm_weight, norm_bias, eps, row_keys, p, seed, site + 1)
