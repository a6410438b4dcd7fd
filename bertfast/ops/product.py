"""Products of matrices, by the library that is fastest at them on this processor.

torch's float32 products are MKL's, whose code for AVX-512 runs on Intel's processors only. On others that have it,
oneDNN, which goes by what the processor can do, is faster: on Zen 5, 240 for 105 GFLOP/s on one core. torch calls
oneDNN by itself in bfloat16 only; in float32 it does so in one op, which its compiler uses.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from bertfast._native import native

_ROWS = 1024
"""That a sum over rows takes at a time: what oneDNN packs stays in the cache, and it keeps fewer programs."""


def matrix_product(left: Tensor, right: Tensor, add: Tensor | None = None) -> Tensor:
    """`left @ right`, or `add + left @ right`, for which `add` may be overwritten. Not differentiable.

    Args:
        left, right: (n, k) and (k, m), float32 or bfloat16; `left` contiguous, or the transpose of what is.
        add: (n, m), in their type.

    Returns: (n, m). It may be the transpose of what is contiguous.
    """
    if not computed_by_onednn(left.device, left.dtype) or 0 in (*left.shape, right.shape[1]):
        return torch.mm(left, right) if add is None else add.addmm_(left, right)
    if not left.is_contiguous():
        return _product_over_rows(left.T, right, add)
    product = _onednn(left, right)
    return product if add is None else add.add_(product)


def _product_over_rows(left: Tensor, right: Tensor, add: Tensor | None) -> Tensor:
    """`left^T @ right + add`."""
    for rows, others in zip(left.split(_ROWS), right.split(_ROWS), strict=True):
        # The first factor is copied, since it isn't contiguous: the smaller one is.
        smaller = left.shape[1] <= right.shape[1]
        product = _onednn(rows.T, others) if smaller else _onednn(others.T, rows).T
        add = product if add is None else add.add_(product)
    assert add is not None
    return add


def computed_by_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `matrix_product` asks oneDNN, rather than whatever torch does."""
    return device.type == "cpu" and dtype == torch.float32 and _onednn_is_faster()


@functools.cache
def _onednn_is_faster() -> bool:
    """Than MKL, in float32."""
    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return has_both and avx512 and not native.cpu_is_intel() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _onednn(left: Tensor, right: Tensor) -> Tensor:
    # `.T`, unlike `.t()`, doesn't release Python's lock, which a shard's thread may then have to wait for.
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right.T, None, "none", [], "")
    return product
