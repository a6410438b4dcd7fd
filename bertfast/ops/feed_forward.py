"""The second half of a layer as one op: two products with the activation between, dropout, residual, LayerNorm.

Its parts are ops by themselves. As one, what leads from op to op (autograd's graph, conversions of parameters, sums of
gradients) is paid for once: on a CPU that had grown to a third of the step in bfloat16.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from bertfast.ops import has_kernels
from bertfast.ops.gelu import _bias_gelu, _bias_gelu_backward, bias_gelu
from bertfast.ops.layer_norm import drop_add_normalize, drop_add_normalize_backward, dropout_add_layer_norm
from bertfast.ops.linear import in_type, late_bias, linear, linear_but_bias, linear_gradients, weight_gradient
from bertfast.ops.op import op
from bertfast.ops.product import matrix_product


def feed_forward(
    x: Tensor,
    in_weight: Tensor,
    in_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
) -> Tensor:
    """`LayerNorm(dropout(gelu(x in_weight^T + in_bias) out_weight^T + out_bias) + x)`.

    Args:
        x: (rows, hidden), float32 or bfloat16; products are computed in its type.
        in_weight, in_bias: (intermediate, hidden) and (intermediate,) float32.
        out_weight, out_bias: (hidden, intermediate) and (hidden,) float32.
        norm_weight, norm_bias, eps, row_keys, p, seed, site: see `dropout_add_layer_norm`.

    Returns: like `x`.
    """
    parameters = (in_weight, in_bias, out_weight, out_bias, norm_weight, norm_bias)
    if has_kernels(x.device, "feed_forward"):
        return cast(Tensor, _feed_forward(x, *parameters, eps, row_keys, p, seed, site)[0])
    return feed_forward_twin(x, *parameters, eps, row_keys, p, seed, site)


@op("feed_forward")
def _feed_forward(
    x: Tensor,
    in_weight: Tensor,
    in_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The result, and what the backward pass reads: both products, the activations between, LayerNorm's moments."""
    widened = matrix_product(x, in_type(in_weight, x.dtype).T)
    activated = _bias_gelu(widened, in_bias)
    narrowed = linear_but_bias(activated, out_weight, out_bias)
    normal = (norm_weight, norm_bias, eps, row_keys, p, seed, site)
    out, moments = drop_add_normalize(narrowed, x, *normal, x_bias=late_bias(out_bias))
    return out, widened, activated, narrowed, moments


@_feed_forward.register_fake
def _(x: Tensor, in_weight: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    wide = x.new_empty(x.shape[0], in_weight.shape[0])
    moments = in_weight.new_empty(x.shape[0], 2)
    return torch.empty_like(x), wide, torch.empty_like(wide), torch.empty_like(x), moments


@op("feed_forward_backward")
def _feed_forward_backward(
    grad: Tensor,
    x: Tensor,
    in_weight: Tensor,
    in_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    norm_weight: Tensor,
    widened: Tensor,
    activated: Tensor,
    narrowed: Tensor,
    moments: Tensor,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    normal = (narrowed, x, norm_weight, moments, row_keys, p, seed, site)
    grads = drop_add_normalize_backward(grad, *normal, x_bias=late_bias(out_bias))
    grad_narrowed, grad_x, grad_norm_weight, grad_norm_bias = grads
    grad_activated = matrix_product(grad_narrowed, in_type(out_weight, x.dtype))
    grad_widened, grad_in_bias = _bias_gelu_backward(grad_activated, widened, in_bias)
    grad_x = matrix_product(grad_widened, in_type(in_weight, x.dtype), add=grad_x)
    grad_in_weight = weight_gradient(grad_widened, x)
    grad_out = linear_gradients(grad_narrowed, activated)
    return grad_x, grad_in_weight, grad_in_bias, *grad_out, grad_norm_weight, grad_norm_bias


@_feed_forward_backward.register_fake
def _(grad: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *differentiable, norm_weight = rest[:6]
    return tuple(each.new_empty(each.shape) for each in (*differentiable, norm_weight, norm_weight))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, in_weight, in_bias, out_weight, out_bias, norm_weight, _, _, row_keys, *ctx.rule = inputs
    _, *intermediate = output
    ctx.mark_non_differentiable(*intermediate)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, in_weight, in_bias, out_weight, out_bias, norm_weight, *intermediate, row_keys)


def _backward(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    grads = _feed_forward_backward(grad.contiguous(), *ctx.saved_tensors, *ctx.rule)
    return *grads, None, None, None, None, None


_feed_forward.register_autograd(_backward, setup_context=_setup_context)


def feed_forward_twin(
    x: Tensor,
    in_weight: Tensor,
    in_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
) -> Tensor:
    """`feed_forward` of its parts."""
    activated = bias_gelu(F.linear(x, in_type(in_weight, x.dtype)), in_bias)
    narrowed = linear(activated, out_weight, out_bias)
    return dropout_add_layer_norm(narrowed, x, norm_weight, norm_bias, eps, row_keys, p, seed, site)
