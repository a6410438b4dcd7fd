"""The feed-forward network's activation, with the bias of the product before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from bertfast._native import native
from bertfast.ops import has_kernels, reference
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
    return reference.bias_gelu(x, bias)


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
    """The gradients of x and bias."""
    grad, x, bias = grad.contiguous(), x.contiguous(), bias.contiguous()
    grad_x, grad_bias = torch.empty_like(x), torch.empty_like(bias)
    with torch.cuda.device_of(x):
        native.bias_gelu_backward(grad, x, bias, grad_x, grad_bias, partial_sums(x, 1))
    return grad_x, grad_bias


_bias_gelu_backward.returns_like(lambda grad, x, bias: (x, bias))


def _save(arguments: Sequence[Any], out: Tensor) -> Sequence[Any]:
    return arguments


def _backward(saved: Sequence[Any], grad: Tensor) -> Sequence[Any]:
    return cast(tuple[Tensor, Tensor], _bias_gelu_backward(grad, *saved))


_bias_gelu.register_autograd(_save, _backward)
