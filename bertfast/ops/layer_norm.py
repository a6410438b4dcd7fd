"""The end of each half of a layer: dropout, residual and LayerNorm in one pass."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from bertfast._native import native
from bertfast.ops import has_kernels
from bertfast.ops.dropout import PLACES_PER_SITE, dropout, widened
from bertfast.ops.op import op
from bertfast.ops.partial_sums import partial_sums


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
    if has_kernels(x.device, "dropout_add_layer_norm"):
        return cast(Tensor, _dropout_add_layer_norm(x, residual, weight, bias, eps, row_keys, p, seed, site)[0])
    return dropout_add_layer_norm_twin(x, residual, weight, bias, eps, row_keys, p, seed, site)


@op("dropout_add_layer_norm")
def _dropout_add_layer_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
) -> tuple[Tensor, Tensor]:
    """The result, and (rows, 2) means and reciprocal deviations, with which the backward pass normalises again."""
    return drop_add_normalize(x, residual, weight, bias, eps, row_keys, p, seed, site)


def drop_add_normalize(
    x: Tensor, residual: Tensor, weight: Tensor, *rest: Any, x_bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The op; `x_bias`: what x lacks (see bertfast.ops.linear)."""
    bias, eps, row_keys, p, seed, site = rest
    x, residual = x.contiguous(), residual.contiguous()
    out, moments = torch.empty_like(x), weight.new_empty(x.shape[0], 2)
    parameters = (weight.contiguous(), bias.contiguous(), eps)
    rule = (row_keys.contiguous(), p, seed, PLACES_PER_SITE * site)
    with torch.cuda.device_of(x):
        native.dropout_add_layer_norm(x, residual, *parameters, *rule, out, moments, x_bias)
    return out, moments


@_dropout_add_layer_norm.register_fake
def _(x: Tensor, residual: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(x.shape[0], 2)


@op("dropout_add_layer_norm_backward")
def _dropout_add_layer_norm_backward(
    grad: Tensor,
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    moments: Tensor,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return drop_add_normalize_backward(grad, x, residual, weight, moments, row_keys, p, seed, site)


def drop_add_normalize_backward(
    grad: Tensor, x: Tensor, residual: Tensor, weight: Tensor, *rest: Any, x_bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The op; `x_bias` as in `drop_add_normalize`."""
    moments, row_keys, p, seed, site = rest
    grad, x, residual, weight = (each.contiguous() for each in (grad, x, residual, weight))
    grads = (torch.empty_like(x), torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight))
    rule = (row_keys.contiguous(), p, seed, PLACES_PER_SITE * site)
    with torch.cuda.device_of(x):
        native.dropout_add_layer_norm_backward(
            grad, x, residual, weight, moments, *rule, *grads, partial_sums(x, 2), x_bias
        )
    return grads


@_dropout_add_layer_norm_backward.register_fake
def _(grad: Tensor, x: Tensor, residual: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return tuple(each.new_empty(each.shape) for each in (x, x, weight, weight))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, residual, weight, _, _, row_keys, *ctx.rule = inputs
    _, moments = output
    ctx.mark_non_differentiable(moments)
    ctx.save_for_backward(x, residual, weight, moments, row_keys)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    grads = _dropout_add_layer_norm_backward(grad.contiguous(), *ctx.saved_tensors, *ctx.rule)
    return *grads, None, None, None, None, None


_dropout_add_layer_norm.register_autograd(_backward, setup_context=_setup_context)


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
    added = dropout(widened(x), row_keys, p, seed, site) + residual
    return F.layer_norm(added, added.shape[1:], weight, bias, eps).to(x.dtype)
