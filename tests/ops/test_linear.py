"""Sums of columns, against float64; weights and their gradients in the products' dtype."""

from __future__ import annotations

import pytest
import torch
from support.numerics import DTYPES

from bertfast.ops.linear import Copy, column_sums, in_type


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


@torch.no_grad()
def test_a_copy_is_used_while_it_is_current() -> None:
    weight = torch.nn.Parameter(torch.randn(3, 5))
    copy = Copy.keep(weight, torch.bfloat16)
    assert in_type(weight, torch.bfloat16) is copy.tensor
    assert in_type(weight, torch.float32) is weight
    assert in_type(weight, torch.float16).dtype == torch.float16
    for change in (lambda: weight.add_(1), lambda: weight[0].zero_(), lambda: weight.detach().neg_()):
        change()
        assert in_type(weight, torch.bfloat16) is not copy.tensor
        assert torch.equal(in_type(weight, torch.bfloat16), weight.bfloat16())
        copy.tensor.copy_(weight)
        copy.mark_current(weight)
        assert in_type(weight, torch.bfloat16) is copy.tensor
    Copy.drop(weight)
    assert in_type(weight, torch.bfloat16) is not copy.tensor
    assert not vars(weight)


def test_gradients_pass_a_copy_by() -> None:
    weight = torch.nn.Parameter(torch.randn(3, 5))
    Copy.keep(weight, torch.bfloat16)
    in_type(weight, torch.bfloat16).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.ones(3, 5))


def test_traced_it_converts() -> None:
    """A compiled graph must not keep the copy that it was traced with."""
    weight = torch.nn.Parameter(torch.randn(3, 5))
    compiled = torch.compile(lambda weight: in_type(weight, torch.bfloat16) + 0, fullgraph=True, backend="eager")
    copy = Copy.keep(weight, torch.bfloat16)
    copy.tensor.zero_()
    with torch.no_grad():
        assert torch.equal(compiled(weight), weight.bfloat16())
