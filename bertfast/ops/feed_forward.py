"""The second half of a layer as one op: two products with the activation between, dropout, residual, LayerNorm.

Its parts are ops of their own, too. Run one by one, they spend a third of a step in bfloat16 on a CPU on what lies
between them: autograd's graph, conversions of parameters, sums of gradients. One op pays for that once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from bertfast.ops import has_kernels, reference
from bertfast.ops.arguments import Dropout, Linear, Norm
from bertfast.ops.gelu import _bias_gelu, _bias_gelu_backward
from bertfast.ops.layer_norm import _dropout_add_layer_norm, _dropout_add_layer_norm_backward
from bertfast.ops.linear import deferred_bias, in_type, linear_deferring_bias, linear_gradients
from bertfast.ops.op import op
from bertfast.ops.product import matrix_product, product_over_rows


def feed_forward(x: Tensor, intermediate: Linear, output: Linear, norm: Norm, dropout: Dropout) -> Tensor:
    """`LayerNorm(dropout(output(gelu(intermediate(x)))) + x)`.

    Args:
        x: (rows, hidden), float32 or bfloat16; products are computed in its type.
        intermediate: (intermediate, hidden).
        output: (hidden, intermediate).
        norm: of `hidden`.
        dropout: of the output.

    Returns: like `x`.
    """
    if has_kernels(x.device, "feed_forward"):
        return cast(Tensor, _feed_forward(x, intermediate, output, norm, dropout)[0])
    return reference.feed_forward(x, intermediate, output, norm, dropout)


class _Intermediate(NamedTuple):
    """What the forward pass hands to the backward pass."""

    expanded: Tensor
    """(rows, intermediate): the first product, without its bias."""
    activated: Tensor
    """(rows, intermediate)."""
    projected: Tensor
    """(rows, hidden): the second product, on a CPU without its bias."""
    moments: Tensor
    """(rows, 2) float32: LayerNorm's."""


@op("feed_forward")
def _feed_forward(
    x: Tensor, intermediate: Linear, output: Linear, norm: Norm, dropout: Dropout
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The result, and `_Intermediate`."""
    expanded = matrix_product(x, in_type(intermediate.weight, x.dtype).T)
    activated = _bias_gelu.function(expanded, intermediate.bias)
    projected = linear_deferring_bias(activated, output)
    out, moments = _dropout_add_layer_norm.function(projected, x, norm, dropout, x_bias=deferred_bias(output))
    return out, expanded, activated, projected, moments


@_feed_forward.register_fake
def _(x: Tensor, intermediate: Linear, *_: Any) -> tuple[Tensor, ...]:
    wide = x.new_empty(x.shape[0], intermediate.weight.shape[0])
    moments = intermediate.weight.new_empty(x.shape[0], 2)
    return torch.empty_like(x), *_Intermediate(wide, torch.empty_like(wide), torch.empty_like(x), moments)


@op("feed_forward_backward")
def _feed_forward_backward(
    grad: Tensor,
    x: Tensor,
    intermediate: Linear,
    output: Linear,
    norm_weight: Tensor,
    forward: _Intermediate,
    dropout: Dropout,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, then of weight and bias of `intermediate`, `output` and the LayerNorm."""
    expanded, activated, projected, moments = forward
    grad_projected, grad_x, *grad_norm = _dropout_add_layer_norm_backward.function(
        grad, projected, x, norm_weight, moments, dropout, x_bias=deferred_bias(output)
    )
    grad_activated = matrix_product(grad_projected, in_type(output.weight, x.dtype))
    grad_expanded, grad_bias = _bias_gelu_backward.function(grad_activated, expanded, intermediate.bias)
    grad_x = matrix_product(grad_expanded, in_type(intermediate.weight, x.dtype), add=grad_x)
    grad_output = linear_gradients(grad_projected, activated)
    return grad_x, product_over_rows(grad_expanded, x), grad_bias, *grad_output, *grad_norm


_feed_forward_backward.returns_like(
    lambda grad, x, intermediate, output, weight, *_: (x, *intermediate, *output, weight, weight)
)


def _save(arguments: Sequence[Any], result: tuple[Tensor, ...]) -> Sequence[Any]:
    x, intermediate, output, norm, dropout = arguments
    return x, intermediate, output, norm.weight, _Intermediate(*result[1:]), dropout


def _backward(saved: Sequence[Any], grad: Tensor) -> Sequence[Any]:
    grad_x, *grads = _feed_forward_backward(grad, *saved)
    return grad_x, grads[0:2], grads[2:4], (*grads[4:6], None), None


_feed_forward.register_autograd(_save, _backward)
