"""A linear layer in its input's type: float32 parameters, and float32 gradients of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bertfast._native import native
from bertfast.ops.op import is_traced
from bertfast.ops.product import matrix_product


class Copy:
    """A weight in another type, which `in_type` finds with the weight from `keep` to `drop`.

    What torch changes in the weight shows, and the copy is not used any more. Whoever changes the weight otherwise
    changes `tensor` as well.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.tensor = weight.detach().to(dtype)
        self._version = weight._version

    @classmethod
    def keep(cls, weight: Tensor, dtype: torch.dtype) -> Copy:
        copy = weight.kept_copy = cls(weight, dtype)  # type: ignore[attr-defined]
        return copy

    @staticmethod
    def drop(weight: Tensor) -> None:
        vars(weight).pop("kept_copy", None)

    def is_of(self, weight: Tensor) -> bool:
        """Whether the weight is still the one that was copied."""
        return self._version == weight._version

    def is_now_of(self, weight: Tensor) -> None:
        """`tensor` is the weight as it is now."""
        self._version = weight._version


def in_type(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """`weight` in `dtype`: the copy that is kept of it, where there is one and nothing is to be differentiated."""
    if not is_traced(weight) and not (torch.is_grad_enabled() and weight.requires_grad):
        copy: Copy | None = getattr(weight, "kept_copy", None)
        if copy is not None and copy.tensor.dtype == dtype and copy.is_of(weight):
            return copy.tensor
    return weight.to(dtype)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`x weight^T + bias`: (rows, in) -> (rows, out), like x."""
    return F.linear(x, in_type(weight, x.dtype), in_type(bias, x.dtype))


def linear_but_bias(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`linear`, on a CPU without its bias: what reads the result there adds `late_bias(bias)` for less.

    torch would write the bias out over the result and have the product read it and add to it. On a GPU the product adds
    it for nothing. For ops with kernels.
    """
    return linear(x, weight, bias) if x.is_cuda else matrix_product(x, in_type(weight, x.dtype).T)


def late_bias(bias: Tensor) -> Tensor | None:
    """What the result of `linear_but_bias` lacks."""
    return None if bias.is_cuda else bias


def linear_gradients(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Those of weight and bias, in float32; that of x is `grad @ weight`. For ops that are autograd's as a whole."""
    return weight_gradient(grad, x), column_sums(grad)


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """`grad^T x` in float32: (rows, out) and (rows, in) -> (out, in)."""
    return matrix_product(grad.T, x).float().contiguous()


def column_sums(x: Tensor) -> Tensor:
    """Of (rows, columns), float32 or bfloat16: (columns,), in float32. torch's takes up to twice as long on a CPU."""
    if x.is_cuda:
        return x.sum(0, dtype=torch.float32)
    sums = x.new_empty(x.shape[1], dtype=torch.float32)
    native.column_sums(x.contiguous(), sums)
    return sums
