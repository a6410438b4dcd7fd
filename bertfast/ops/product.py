"""Matrix products, by the library that is fastest on this processor.

torch computes float32 products with MKL, whose AVX-512 code runs on Intel's processors only. On others with AVX-512,
oneDNN is faster: 240 against 105 GFLOP/s on one core of Zen 5. torch itself uses oneDNN for bfloat16 only; for float32,
one op uses it, which is there for torch's compiler.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from bertfast._native import native

_ROWS = 1024
"""Rows that a sum over rows takes at a time: what oneDNN packs stays in the cache, and it compiles for fewer shapes."""


def matrix_product(left: Tensor, right: Tensor, add: Tensor | None = None) -> Tensor:
    """`left @ right`, or `add + left @ right`, which may overwrite `add`. Not differentiable.

    Args:
        left, right: (n, k) and (k, m), float32 or bfloat16; `left` or its transpose is contiguous.
        add: (n, m), of the same dtype.

    Returns: (n, m). It or its transpose is contiguous.
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
        # A first factor that isn't contiguous is copied: make it the smaller one.
        left_is_smaller = left.shape[1] <= right.shape[1]
        product = _onednn(rows.T, others) if left_is_smaller else _onednn(others.T, rows).T
        add = product if add is None else add.add_(product)
    assert add is not None
    return add


def computed_by_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `matrix_product` calls oneDNN instead of torch's own product."""
    return device.type == "cpu" and dtype == torch.float32 and _onednn_is_faster()


@functools.cache
def _onednn_is_faster() -> bool:
    """Whether oneDNN is faster than MKL in float32."""
    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return has_both and avx512 and not native.cpu_is_intel() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _onednn(left: Tensor, right: Tensor) -> Tensor:
    # `.T`, unlike `.t()`, doesn't release Python's lock, which a shard's thread may have to wait for afterwards.
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right.T, None, "none", [], "")
    return product
