"""The first half of a layer as one op: projections, attention, dropout, residual, LayerNorm (why: feed_forward.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from torch import Tensor

from bertfast.ops import has_kernels, reference
from bertfast.ops.arguments import Dropout, Lengths, Linear, Norm, SelfAttentionLayer
from bertfast.ops.attention import _attention, _attention_backward
from bertfast.ops.layer_norm import _dropout_add_layer_norm, _dropout_add_layer_norm_backward
from bertfast.ops.linear import deferred_bias, in_type, linear_deferring_bias, linear_gradients
from bertfast.ops.op import op
from bertfast.ops.product import matrix_product


def self_attention(
    x: Tensor,
    rows: Tensor | None,
    lengths: Lengths,
    layer: SelfAttentionLayer,
    attention_dropout: Dropout,
    dropout: Dropout,
) -> Tensor:
    """`LayerNorm(dropout(output(attention(query(y), key_value(x)))) + y)`, with y = x, or x[rows].

    Args:
        x: (tokens, hidden), float32 or bfloat16, packed; products are computed in its dtype.
        rows: (n,) int64, the tokens that are queries; None: all of them.
        lengths: of the sequences; `cu_seqlens_q` counts in `rows`.
        layer: the parameters.
        attention_dropout: of attention's probabilities; like `dropout` with a key for each row of y.
        dropout: of the output projection.

    Returns: like y.
    """
    if has_kernels(x.device, "self_attention"):
        return cast(Tensor, _self_attention(x, rows, lengths, *layer, attention_dropout, dropout)[0])
    return reference.self_attention(x, rows, lengths, layer, attention_dropout, dropout)


class _Intermediate(NamedTuple):
    """What the forward pass hands to the backward pass."""

    query: Tensor
    """(n, heads, head_dim), on a CPU without its bias, like the next and `projected`."""
    key_value: Tensor
    """(tokens, 2, heads, head_dim)."""
    context: Tensor
    """(n, heads, head_dim): attention's result."""
    log_sum_exp: Tensor
    """(n, heads) float32."""
    projected: Tensor
    """(n, hidden): the output projection."""
    moments: Tensor
    """(n, 2) float32: LayerNorm's."""


@op("self_attention")
def _self_attention(
    x: Tensor,
    rows: Tensor | None,
    lengths: Lengths,
    query: Linear,
    key_value: Linear,
    output: Linear,
    norm: Norm,
    heads: int,
    attention_dropout: Dropout,
    dropout: Dropout,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The result, and `_Intermediate`."""
    residual = x if rows is None else x.index_select(0, rows)
    q = linear_deferring_bias(residual, query).unflatten(1, (heads, -1))
    kv = linear_deferring_bias(x, key_value).unflatten(1, (2, heads, -1))
    context, log_sum_exp = _attention.function(
        q,
        kv,
        lengths,
        attention_dropout,
        query_bias=deferred_bias(query),
        key_value_bias=deferred_bias(key_value),
    )
    projected = linear_deferring_bias(context.flatten(1), output)
    out, moments = _dropout_add_layer_norm.function(projected, residual, norm, dropout, x_bias=deferred_bias(output))
    return out, q, kv, context, log_sum_exp, projected, moments


@_self_attention.register_fake
def _(
    x: Tensor, rows: Tensor | None, _1: Any, query: Linear, _2: Any, _3: Any, _4: Any, heads: int, *_: Any
) -> tuple[Tensor, ...]:
    tokens, hidden = x.shape
    count, head_dim = (tokens if rows is None else rows.shape[0]), hidden // heads
    intermediate = _Intermediate(
        query=x.new_empty(count, heads, head_dim),
        key_value=x.new_empty(tokens, 2, heads, head_dim),
        context=x.new_empty(count, heads, head_dim),
        log_sum_exp=query.weight.new_empty(count, heads),
        projected=x.new_empty(count, hidden),
        moments=query.weight.new_empty(count, 2),
    )
    return x.new_empty(count, hidden), *intermediate


@op("self_attention_backward")
def _self_attention_backward(
    grad: Tensor,
    x: Tensor,
    rows: Tensor | None,
    lengths: Lengths,
    query: Linear,
    key_value: Linear,
    output: Linear,
    norm_weight: Tensor,
    intermediate: _Intermediate,
    attention_dropout: Dropout,
    dropout: Dropout,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, then of weight and bias of `query`, `key_value`, `output` and the LayerNorm."""
    q, kv, context, log_sum_exp, projected, moments = intermediate
    residual = x if rows is None else x.index_select(0, rows)
    grad_projected, grad_residual, *grad_norm = _dropout_add_layer_norm_backward.function(
        grad, projected, residual, norm_weight, moments, dropout, x_bias=deferred_bias(output)
    )
    grad_context = matrix_product(grad_projected, in_type(output.weight, x.dtype)).view_as(q)
    grads = _attention_backward.function(
        grad_context,
        q,
        kv,
        log_sum_exp,
        lengths,
        attention_dropout,
        query_bias=deferred_bias(query),
        key_value_bias=deferred_bias(key_value),
    )
    grad_q, grad_kv = (each.flatten(1) for each in grads)
    grad_residual = matrix_product(grad_q, in_type(query.weight, x.dtype), add=grad_residual)
    key_value_weight = in_type(key_value.weight, x.dtype)
    if rows is None:
        grad_x = matrix_product(grad_kv, key_value_weight, add=grad_residual)
    else:
        grad_x = matrix_product(grad_kv, key_value_weight).index_add_(0, rows, grad_residual)
    grad_query, grad_key_value = linear_gradients(grad_q, residual), linear_gradients(grad_kv, x)
    grad_output = linear_gradients(grad_projected, context.flatten(1))
    return grad_x, *grad_query, *grad_key_value, *grad_output, *grad_norm


_self_attention_backward.returns_like(
    lambda grad, x, rows, lengths, q, kv, output, weight, *_: (x, *q, *kv, *output, weight, weight)
)


def _save(arguments: Sequence[Any], result: tuple[Tensor, ...]) -> Sequence[Any]:
    x, rows, lengths, query, key_value, output, norm, _, *dropouts = arguments
    return x, rows, lengths, query, key_value, output, norm.weight, _Intermediate(*result[1:]), *dropouts


def _backward(saved: Sequence[Any], grad: Tensor) -> Sequence[Any]:
    grad_x, *grads = _self_attention_backward(grad, *saved)
    query, key_value, output, norm = grads[0:2], grads[2:4], grads[4:6], (*grads[6:8], None)
    return grad_x, None, None, query, key_value, output, norm, None, None, None


_self_attention.register_autograd(_save, _backward)
