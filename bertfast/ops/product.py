"""Matrix products, by what is fastest on this processor.

torch computes float32 products with MKL, whose AVX-512 code runs on Intel's processors only, and bfloat16 ones with
oneDNN. On others with AVX-512 the project's own kernel is faster. On one core of Zen 5 it reaches 0.40 to 0.53 TFLOP/s
in bfloat16, at sizes from 1,024 x 128 by 128 x 128 on, where oneDNN has 0.36 to 0.51, and takes 10 instead of 16 us for
64 x 128 by 128 x 128. In float32 it reaches 0.19 to 0.27 TFLOP/s, MKL 0.10 to 0.11. It adds to what there is at no
cost, rounds no sum to bfloat16 before its end, and compiles nothing for each size.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from bertfast._native import native


def matrix_product(left: Tensor, right: Tensor, add: Tensor | None = None) -> Tensor:
    """`left @ right`, or `add + left @ right`, which may overwrite `add`. Not differentiable.

    Args:
        left, right: (n, k) and (k, m), float32 or bfloat16; a factor or its transpose is contiguous, or it is copied.
        add: (n, m), of the same dtype.

    Returns: (n, m).
    """
    if multiplied_by_kernel(left.device, left.dtype):
        return _by_kernel(left, right, left.dtype, add)
    return torch.mm(left, right) if add is None else add.addmm_(left, right)


def product_over_rows(left: Tensor, right: Tensor, add: Tensor | None = None) -> Tensor:
    """`left^T right`, or `add + left^T right`, which may overwrite `add`, in float32. Not differentiable.

    Args:
        left, right: (rows, n) and (rows, m), float32 or bfloat16.
        add: (n, m) float32.

    Returns: (n, m) float32.
    """
    if multiplied_by_kernel(left.device, left.dtype):
        return _by_kernel(left.T, right, torch.float32, add)
    if left.dtype == torch.float32:
        return torch.mm(left.T, right) if add is None else add.addmm_(left.T, right)
    # On a GPU the product itself is float32, and nothing is rounded to bfloat16.
    product = torch.mm(left.T, right, out_dtype=torch.float32) if left.is_cuda else torch.mm(left.T, right).float()
    return product if add is None else add.add_(product)


def multiplied_by_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products are the project's kernel's, which adds at no cost."""
    return device.type == "cpu" and dtype in (torch.float32, torch.bfloat16) and _kernel_is_faster()


@functools.cache
def _kernel_is_faster() -> bool:
    """Whether the project's kernel is faster, as on Zen 5. With AMX or from Intel it is untimed."""
    return native.isa() in ("avx512", "avx512_bf16") and not native.cpu_is_intel()


def _by_kernel(left: Tensor, right: Tensor, dtype: torch.dtype, add: Tensor | None) -> Tensor:
    to = left.new_empty(left.shape[0], right.shape[1], dtype=dtype) if add is None else add.contiguous()
    native.matrix_product(*_stored(left), *_stored(right), to, add is not None)
    return to


def _stored(factor: Tensor) -> tuple[Tensor, bool]:
    """A contiguous matrix, and whether it is the transposed one.

    `.T`, unlike `.t()`, doesn't release Python's lock, which a shard's thread may have to wait for afterwards.
    """
    return (factor, False) if factor.is_contiguous() else (factor.T.contiguous(), True)
