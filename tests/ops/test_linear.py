"""Sums down the columns, against float64."""

from __future__ import annotations

import pytest
import torch
from support.numerics import DTYPES

from bertfast.ops.linear import column_sums


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (1, 1), (63, 33), (65, 64), (700, 511), (20000, 96)])
def test_column_sums(isa: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    sums = column_sums(x)
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums.double(), x.double().sum(0), rtol=1e-6, atol=1e-6 * max(1, shape[0]) ** 0.5)
    assert torch.equal(column_sums(x.t().contiguous().t()), sums)


def test_threads_do_not_change_a_bit(two_threads: None) -> None:
    x = torch.randn(20000, 70)
    two = column_sums(x)
    torch.set_num_threads(1)
    assert torch.equal(two, column_sums(x))
