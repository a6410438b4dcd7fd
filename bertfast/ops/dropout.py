"""Dropout keyed by rows: a function of (seed, site, row key, column) decides what is dropped, never hidden state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from bertfast._native import native
from bertfast.ops import has_kernels, reference
from bertfast.ops.arguments import Dropout
from bertfast.ops.op import op


def apply_dropout(x: Tensor, dropout: Dropout) -> Tensor:
    """`out[r, c] = x[r, c] / (1 - p)` where kept, else 0; kept with probability 1 - p.

    Element (r, c) is kept iff the lower (c even) or upper half of word `c % 8 // 2` of the draw, of seven rounds, with
    index `row_keys[r]`, slot `c // 8` and place `256 * site` is below `max(1, round((1 - p) 2^16))`. The backward pass
    draws again; no mask is stored.

    Args:
        x: (rows, columns), float32 or bfloat16; float64, for checking, is computed in plain torch. With p = 0, `x`
            itself is returned.
    """
    if dropout.p == 0:
        return x
    if has_kernels(x.device, "dropout") and x.dtype != torch.float64:
        return cast(Tensor, _dropout(x, dropout))
    return reference.apply_dropout(x, dropout)


@op("dropout")
def _dropout(x: Tensor, dropout: Dropout) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    with torch.cuda.device_of(x):
        native.dropout(x, *dropout.for_kernel(), out)
    return out


@_dropout.register_fake
def _(x: Tensor, dropout: Dropout) -> Tensor:
    return x.new_empty(x.shape)


def _save(arguments: Sequence[Any], out: Tensor) -> Sequence[Any]:
    _, dropout = arguments
    return (dropout,)


def _backward(saved: Sequence[Any], grad: Tensor) -> Sequence[Any]:
    (dropout,) = saved
    return _dropout(grad, dropout), None


_dropout.register_autograd(_save, _backward)
