"""gather_rows against indexing."""

from __future__ import annotations

import pytest
import torch
from support.gpu import GPU

from bertfast.ops.gather_rows import _gather_rows, gather_rows


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_gathered_rows_equal_indexing(dtype: torch.dtype, device: str) -> None:
    x = torch.randn(11, 5, device=device).to(dtype).requires_grad_()
    positions = torch.tensor([9, 0, 4], device=device)
    upstream = torch.randn(3, 5, device=device).to(dtype)
    out = gather_rows(x, positions)
    assert torch.equal(out, x[positions])
    (got,) = torch.autograd.grad(out, x, upstream)
    (expected,) = torch.autograd.grad(x[positions], x, upstream)
    assert torch.equal(got, expected)


def test_gather_rows_passes_opcheck_and_is_linear() -> None:
    x = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    positions = torch.tensor([9, 0, 4])
    torch.library.opcheck(_gather_rows.registered, (x, positions))
    assert torch.autograd.gradcheck(gather_rows, (x, positions))
    assert torch.autograd.gradgradcheck(gather_rows, (x, positions))
    with pytest.raises(IndexError):
        gather_rows(x, torch.tensor([11]))
