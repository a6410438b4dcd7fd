"""Working memory for sums over rows. Fake tensors stand in for a GPU's."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bertfast.ops.partial_sums import MOST_SLICES, partial_sums


@pytest.mark.parametrize("rows", [0, 1, 5, MOST_SLICES, MOST_SLICES + 1, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_slice_a_row_up_to_a_limit(rows, dtype):
    """At least one, so that a sum over no rows has a place to begin with 0."""
    with FakeTensorMode():
        found = partial_sums(torch.empty(rows, 33, dtype=dtype, device="cuda"), 2)
    assert found.shape == (max(1, min(rows, 2112)), 2, 33)
    assert (found.dtype, found.device.type) == (torch.float32, "cuda")


def test_a_cpu_needs_none():
    assert partial_sums(torch.empty(4, 33), 2) is None
