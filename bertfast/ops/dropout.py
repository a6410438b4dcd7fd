"""Dropout keyed by rows: what falls is a function of (seed, site, row key, column), never of hidden state."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from bertfast._native import native
from bertfast.ops import has_kernels
from bertfast.ops.op import op

PLACES_PER_SITE = 256
"""Places that one dropout site owns; attention numbers its heads within them."""

_STREAM_DROPOUT = 3
_LOW = 0xFFFFFFFF


def dropout(x: Tensor, row_keys: Tensor, p: float, seed: int, site: int) -> Tensor:
    """`out[r, c] = x[r, c] / (1 - p)` where kept, else 0; kept with probability 1 - p.

    Element (r, c) is kept iff the lower (c even) or upper half of word `c % 8 // 2` of the draw, of seven rounds, with
    index `row_keys[r]`, slot `c // 8` and place `256 * site` is below `max(1, round((1 - p) 2^16))`. The backward pass
    draws again; no mask is stored.

    Args:
        x: (rows, columns), float32 or bfloat16; float64, for checking, is computed in plain torch.
        row_keys: (rows,) int64.
        p: share that falls, in [0, 1). With 0, `x` itself is returned.
        seed: any int64.
        site: which dropout of the model this is, in [0, 65536).
    """
    if p == 0:
        return x
    if has_kernels(x.device, "dropout") and x.dtype != torch.float64:
        return cast(Tensor, _dropout(x, row_keys, p, seed, site))
    return dropout_twin(x, row_keys, p, seed, site)


@op("dropout")
def _dropout(x: Tensor, row_keys: Tensor, p: float, seed: int, site: int) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    with torch.cuda.device_of(x):
        native.dropout(x, row_keys.contiguous(), p, seed, PLACES_PER_SITE * site, out)
    return out


@_dropout.register_fake
def _(x: Tensor, row_keys: Tensor, p: float, seed: int, site: int) -> Tensor:
    return x.new_empty(x.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, row_keys, *ctx.rule = inputs
    ctx.save_for_backward(row_keys)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
    (row_keys,) = ctx.saved_tensors
    return _dropout(grad.contiguous(), row_keys, *ctx.rule), None, None, None, None


_dropout.register_autograd(_backward, setup_context=_setup_context)


def dropout_twin(x: Tensor, row_keys: Tensor, p: float, seed: int, site: int) -> Tensor:
    """`dropout` in plain torch. The scale is rounded to float32, as the kernels hold it."""
    if p == 0:
        return x
    mask = dropout_mask_twin(row_keys, x.shape[1], p, seed, PLACES_PER_SITE * site)
    return torch.where(mask, (widened(x) * (1.0 / (1.0 - p))).to(x.dtype), 0.0)


def widened(x: Tensor) -> Tensor:
    """`x` in the type that its arithmetic is done in: float32 for bfloat16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def dropout_mask_twin(row_keys: Tensor, columns: int, p: float, seed: int, place: int) -> Tensor:
    """Which elements are kept, in plain torch: (rows, columns) bool."""
    slots = torch.arange((columns + 7) // 8, device=row_keys.device).expand(row_keys.shape[0], -1)
    index = row_keys[:, None].expand_as(slots)
    counter = (index & _LOW, index >> 32 & _LOW, slots, torch.full_like(slots, _STREAM_DROPOUT | place << 8))
    words = _philox4x32_7(counter, seed & _LOW, seed >> 32 & _LOW)
    halves = torch.stack([half for word in words for half in (word & 0xFFFF, word >> 16)], dim=2).flatten(1)
    return halves[:, :columns] < max(1, math.floor((1.0 - p) * 2.0**16 + 0.5))


_Words = tuple[Tensor, Tensor, Tensor, Tensor]


def _philox4x32_7(counter: _Words, k0: int, k1: int) -> _Words:
    """Philox4x32-7 on int64 tensors that hold 32-bit words."""
    c0, c1, c2, c3 = counter
    for _ in range(7):
        high0, low0 = _multiply(c0, 0xD2511F53)
        high1, low1 = _multiply(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return c0, c1, c2, c3


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """The high and low words of a 64-bit product.

    In two halves: a product beyond 2^63 is undefined in the C++ that torch.compile writes, and came out wrong.
    """
    low, high = a * (b & 0xFFFF), a * (b >> 16)
    return high + (low >> 16) >> 16, ((high & 0xFFFF) << 16) + low & _LOW
