"""Matrix products, by what is fastest on this processor.

torch computes float32 products with MKL, whose AVX-512 code runs on Intel's processors only. On others with AVX-512,
oneDNN is faster: 240 against 105 GFLOP/s on one core of Zen 5. torch itself uses oneDNN for bfloat16 only; for float32,
one op uses it, which is there for torch's compiler.

Over rows, neither library is at its best there: both transpose a factor first, and a bfloat16 sum is rounded. The
project's own kernel reaches 0.37 to 0.50 TFLOP/s in bfloat16 on that core where oneDNN has 0.30 to 0.46, and 0.18 to
0.25 in float32 where it has 0.11 to 0.24.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from bertfast._native import native


def matrix_product(left: Tensor, right: Tensor, add: Tensor | None = None) -> Tensor:
    """`left @ right`, or `add + left @ right`, which may overwrite `add`. Not differentiable.

    Args:
        left, right: (n, k) and (k, m), float32 or bfloat16; `left` or its transpose is contiguous.
        add: (n, m), of the same dtype.

    Returns: (n, m).
    """
    if not computed_by_onednn(left.device, left.dtype) or 0 in (*left.shape, right.shape[1]):
        return torch.mm(left, right) if add is None else add.addmm_(left, right)
    if not left.is_contiguous():
        return product_over_rows(left.T, right, add)
    # `.T`, unlike `.t()`, doesn't release Python's lock, which a shard's thread may have to wait for afterwards.
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right.T, None, "none", [], "")
    return product if add is None else add.add_(product)


def product_over_rows(left: Tensor, right: Tensor, add: Tensor | None = None) -> Tensor:
    """`left^T right`, or `add + left^T right`, which may overwrite `add`, in float32. Not differentiable.

    Args:
        left, right: (rows, n) and (rows, m), float32 or bfloat16.
        add: (n, m) float32.

    Returns: (n, m) float32.
    """
    if summed_by_kernel(left.device):
        total = left.new_empty(left.shape[1], right.shape[1], dtype=torch.float32) if add is None else add.contiguous()
        native.product_over_rows(left.contiguous(), right.contiguous(), total, add is not None)
        return total
    if left.dtype == torch.float32:
        return torch.mm(left.T, right) if add is None else add.addmm_(left.T, right)
    # On a GPU the product itself is float32, and nothing is rounded to bfloat16.
    product = torch.mm(left.T, right, out_dtype=torch.float32) if left.is_cuda else torch.mm(left.T, right).float()
    return product if add is None else add.add_(product)


def computed_by_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `matrix_product` calls oneDNN instead of torch's own product."""
    return device.type == "cpu" and dtype == torch.float32 and _onednn_is_faster()


def summed_by_kernel(device: torch.device) -> bool:
    """Whether `product_over_rows` calls the project's kernel, which adds at no cost."""
    return device.type == "cpu" and _kernel_is_faster()


@functools.cache
def _onednn_is_faster() -> bool:
    """Whether oneDNN is faster than MKL in float32."""
    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return has_both and avx512 and not native.cpu_is_intel() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@functools.cache
def _kernel_is_faster() -> bool:
    """Whether the project's kernel is faster over rows, as on Zen 5. With AMX or from Intel it is untimed."""
    return native.isa() in ("avx512", "avx512_bf16") and not native.cpu_is_intel()
