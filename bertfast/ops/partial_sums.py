"""Working memory of the CUDA kernels' sums over rows, which native code never allocates itself."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_SLICES = 2112
"""The most parts of a sum over rows on a GPU: one for each warp that the 132 multiprocessors of an H100 or H200 hold of
these kernels at once. The order of a sum depends on it."""


def partial_sums(x: Tensor, sums: int) -> Tensor | None:
    """(slices, sums, columns) float32, uninitialised, for sums over the rows of `x`; None on a CPU."""
    if not x.is_cuda:
        return None
    rows, columns = x.shape
    return x.new_empty(min(MOST_SLICES, max(rows, 1)), sums, columns, dtype=torch.float32)
