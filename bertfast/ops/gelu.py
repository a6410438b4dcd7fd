"""The feed-forward network's activation, with the bias of the product before it."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from bertfast._native import native
from bertfast.ops import has_kernels
from bertfast.ops.dropout import widened
from bertfast.ops.op import op
from bertfast.ops.partial_sums import partial_sums


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """`gelu(x + bias)` with `gelu(u) = u (1 + erf(u / sqrt(2))) / 2`, computed in float32.

    Args:
        x: (rows, columns), float32 or bfloat16.
        bias: (columns,) float32.

    Returns: like `x`.
    """
    if has_kernels(x.device, "bias_gelu"):
        return cast(Tensor, _bias_gelu(x, bias))
    return bias_gelu_twin(x, bias)


@op("bias_gelu")
def _bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    with torch.cuda.device_of(x):
        native.bias_gelu(x, bias.contiguous(), out)
    return out


@_bias_gelu.register_fake
def _(x: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@op("bias_gelu_backward")
def _bias_gelu_backward(grad: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    grad, x, bias = grad.contiguous(), x.contiguous(), bias.contiguous()
    grad_x, grad_bias = torch.empty_like(x), torch.empty_like(bias)
    with torch.cuda.device_of(x):
        native.bias_gelu_backward(grad, x, bias, grad_x, grad_bias, partial_sums(x, 1))
    return grad_x, grad_bias


@_bias_gelu_backward.register_fake
def _(grad: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), bias.new_empty(bias.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    return cast(tuple[Tensor, Tensor], _bias_gelu_backward(grad.contiguous(), *ctx.saved_tensors))


_bias_gelu.register_autograd(_backward, setup_context=_setup_context)


def bias_gelu_twin(x: Tensor, bias: Tensor) -> Tensor:
    """`bias_gelu` in plain torch."""
    return F.gelu(widened(x) + bias).to(x.dtype)
