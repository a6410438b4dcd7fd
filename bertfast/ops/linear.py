"""A linear layer in its input's dtype, with float32 parameters and gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from bertfast._native import native
from bertfast.ops.arguments import Linear
from bertfast.ops.op import is_traced
from bertfast.ops.product import matrix_product, product_over_rows


class Copy:
    """A weight's copy in another dtype, which `in_type` finds on the weight from `keep` to `drop`.

    torch counts its changes to a weight. After one, the copy is stale and not used until `mark_current`. Native code,
    whose changes torch does not count, must change `tensor` too.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.tensor = weight.detach().to(dtype)
        self._version = weight._version

    @classmethod
    def keep(cls, weight: Tensor, dtype: torch.dtype) -> Copy:
        copy = weight.kept_copy = cls(weight, dtype)  # type: ignore[attr-defined]
        return copy

    @staticmethod
    def share(weight: Tensor, alias: Tensor) -> Tensor:
        """`alias`, a tensor with the weight's memory, on which `in_type` now finds the weight's copy."""
        if hasattr(weight, "kept_copy"):
            alias.kept_copy = weight.kept_copy  # type: ignore[attr-defined]
        return alias

    @staticmethod
    def drop(weight: Tensor) -> None:
        vars(weight).pop("kept_copy", None)

    def is_current(self, weight: Tensor) -> bool:
        """Whether the weight is unchanged, and where it was, since it was copied."""
        return self._version == weight._version and self.tensor.device == weight.device

    def mark_current(self, weight: Tensor) -> None:
        """Call it once `tensor` equals the weight again."""
        self._version = weight._version


def keep_copies(weights: Iterable[Tensor], dtype: torch.dtype) -> None:
    """Keeps a current copy of each weight in `dtype`, where that is another than the weight's."""
    for weight in weights:
        copy: Copy | None = getattr(weight, "kept_copy", None)
        if weight.dtype != dtype and (copy is None or copy.tensor.dtype != dtype or not copy.is_current(weight)):
            Copy.keep(weight, dtype)


def in_type(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """`weight` in `dtype`: its kept copy, if that is current and no gradient must flow through; else converted."""
    if not is_traced(weight) and not (torch.is_grad_enabled() and weight.requires_grad):
        copy: Copy | None = getattr(weight, "kept_copy", None)
        if copy is not None and copy.tensor.dtype == dtype and copy.is_current(weight):
            return copy.tensor
    return weight.to(dtype)


def linear(x: Tensor, layer: Linear) -> Tensor:
    """`x weight^T + bias`: (rows, in) -> (rows, out), in the dtype of x."""
    return F.linear(x, in_type(layer.weight, x.dtype), in_type(layer.bias, x.dtype))


def linear_deferring_bias(x: Tensor, layer: Linear) -> Tensor:
    """`linear`, but on a CPU without the bias: the kernel that reads the result adds `deferred_bias(layer)`.

    That kernel adds it at no cost, where torch would fill the result with the bias before the product. On a GPU the
    product itself adds it at no cost.
    """
    return linear(x, layer) if x.is_cuda else matrix_product(x, in_type(layer.weight, x.dtype).T)


def deferred_bias(layer: Linear) -> Tensor | None:
    """The bias that is missing in the result of `linear_deferring_bias`; None on a GPU."""
    return None if layer.bias.is_cuda else layer.bias.contiguous()


def linear_gradients(grad: Tensor, x: Tensor) -> Linear:
    """The float32 gradients of weight and bias. The gradient of x is `grad @ weight`."""
    return Linear(product_over_rows(grad, x), column_sums(grad))


def column_sums(x: Tensor) -> Tensor:
    """(rows, columns), float32 or bfloat16 -> (columns,) float32. torch's sum takes up to twice as long on a CPU."""
    if x.is_cuda:
        return x.sum(0, dtype=torch.float32)
    sums = x.new_empty(x.shape[1], dtype=torch.float32)
    native.column_sums(x.contiguous(), sums)
    return sums
