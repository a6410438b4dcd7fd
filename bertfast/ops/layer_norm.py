"""The end of each half of a layer: dropout, residual and LayerNorm in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from bertfast._native import native
from bertfast.ops import has_kernels, reference
from bertfast.ops.arguments import Dropout, Norm
from bertfast.ops.op import op
from bertfast.ops.partial_sums import partial_sums


def dropout_add_layer_norm(x: Tensor, residual: Tensor, norm: Norm, dropout: Dropout) -> Tensor:
    """`LayerNorm(dropout(x) + residual)`, computed in float32.

    Args:
        x, residual: (rows, hidden), float32 or bfloat16.
        norm: of `hidden`.
        dropout: of `x`.

    Returns: like `x`.
    """
    if has_kernels(x.device, "dropout_add_layer_norm"):
        return cast(Tensor, _dropout_add_layer_norm(x, residual, norm, dropout)[0])
    return reference.dropout_add_layer_norm(x, residual, norm, dropout)


@op("dropout_add_layer_norm")
def _dropout_add_layer_norm(
    x: Tensor, residual: Tensor, norm: Norm, dropout: Dropout, *, x_bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The result, and (rows, 2) means and reciprocal deviations, from which the backward pass normalises again.

    `x_bias`: added to x first; see `bertfast.ops.linear.linear_deferring_bias`.
    """
    x, residual = x.contiguous(), residual.contiguous()
    out, moments = torch.empty_like(x), norm.weight.new_empty(x.shape[0], 2)
    parameters = (norm.weight.contiguous(), norm.bias.contiguous(), norm.eps)
    with torch.cuda.device_of(x):
        native.dropout_add_layer_norm(x, residual, *parameters, *dropout.for_kernel(), out, moments, x_bias)
    return out, moments


@_dropout_add_layer_norm.register_fake
def _(x: Tensor, residual: Tensor, norm: Norm, dropout: Dropout) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), norm.weight.new_empty(x.shape[0], 2)


@op("dropout_add_layer_norm_backward")
def _dropout_add_layer_norm_backward(
    grad: Tensor,
    x: Tensor,
    residual: Tensor,
    norm_weight: Tensor,
    moments: Tensor,
    dropout: Dropout,
    *,
    x_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, residual, weight and bias."""
    grad, x, residual, weight = (each.contiguous() for each in (grad, x, residual, norm_weight))
    grads = (torch.empty_like(x), torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight))
    working = partial_sums(x, 2)
    with torch.cuda.device_of(x):
        native.dropout_add_layer_norm_backward(
            grad, x, residual, weight, moments, *dropout.for_kernel(), *grads, working, x_bias
        )
    return grads


_dropout_add_layer_norm_backward.returns_like(lambda grad, x, residual, weight, *_: (x, x, weight, weight))


def _save(arguments: Sequence[Any], result: tuple[Tensor, Tensor]) -> Sequence[Any]:
    x, residual, norm, dropout = arguments
    _, moments = result
    return x, residual, norm.weight, moments, dropout


def _backward(saved: Sequence[Any], grad: Tensor) -> Sequence[Any]:
    grad_x, grad_residual, grad_weight, grad_bias = _dropout_add_layer_norm_backward(grad, *saved)
    return grad_x, grad_residual, (grad_weight, grad_bias, None), None


_dropout_add_layer_norm.register_autograd(_save, _backward)
