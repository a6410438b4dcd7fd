"""Products by each library and by the kernel, against float64."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from support.dispatched import Dispatched
from support.numerics import DTYPES, assert_as_exact
from support.small_run import CPU
from torch._subclasses.fake_tensor import FakeTensorMode

from bertfast._native import native
from bertfast.ops import product
from bertfast.ops.product import computed_by_onednn, matrix_product, product_over_rows, summed_by_kernel

SIZES = [(0, 3, 2), (3, 0, 2), (3, 2, 0), (1, 1, 1), (5, 130, 7), (1024, 8, 16), (1025, 32, 3), (2500, 16, 24)]


@pytest.fixture(params=[True, False], ids=["oneDNN", "torch"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses this library, whichever is faster here."""
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("torch has no oneDNN")
    monkeypatch.setattr(product, "_onednn_is_faster", lambda: request.param)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("over_rows", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_against_float64(sizes: tuple[int, int, int], over_rows: bool, adds: bool, dtype: torch.dtype) -> None:
    """`over_rows`: the left factor is transposed, so that the sum is over the long side."""
    n, k, m = sizes
    generator = torch.Generator().manual_seed(7)
    left = torch.randn(n, k, generator=generator).to(dtype)
    right = torch.randn(n if over_rows else k, m, generator=generator).to(dtype)
    left = left.t() if over_rows else left
    add = torch.randn(left.shape[0], m, generator=generator).to(dtype) if adds else None
    truth = left.double() @ right.double() + (add.double() if add is not None else 0)
    torchs = left @ right if add is None else torch.addmm(add, left, right)
    ours = matrix_product(left, right, add)
    assert ours.dtype == dtype
    assert_as_exact([ours], [torchs], [truth], left.shape[1])


@pytest.mark.usefixtures("library")
def test_transposed_right_factor() -> None:
    generator = torch.Generator().manual_seed(8)
    left, right = (torch.randn(rows, 20, generator=generator) for rows in (1500, 9))
    assert_as_exact([matrix_product(left, right.t())], [left @ right.t()], [left.double() @ right.double().t()], 20)


@pytest.mark.parametrize(
    ("capability", "intel", "mkl", "onednn", "has_op", "expected"),
    [
        ("AVX512", False, True, True, True, True),
        ("AVX2", False, True, True, True, False),
        ("AVX512", True, True, True, True, False),
        ("AVX512", False, False, True, True, False),
        ("AVX512", False, True, False, True, False),
        ("AVX512", False, True, True, False, False),
    ],
)
def test_onednn_is_taken_where_mkl_does_without_avx512(
    monkeypatch: pytest.MonkeyPatch,
    capability: str,
    intel: bool,
    mkl: bool,
    onednn: bool,
    has_op: bool,
    expected: bool,
) -> None:
    """The processor, its vendor, and what torch was built with, decide."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(native, "cpu_is_intel", lambda: intel)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(**({"_linear_pointwise": None} if has_op else {})))
    monkeypatch.setattr(product, "_onednn_is_faster", product._onednn_is_faster.__wrapped__)  # without its cache
    assert computed_by_onednn(CPU, torch.float32) is expected
    assert not computed_by_onednn(CPU, torch.bfloat16)
    assert not computed_by_onednn(torch.device("cuda"), torch.float32)


# ---- over rows


def factors(rows: int, left: int, right: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two factors, and a float32 matrix of the product's size."""
    generator = torch.Generator().manual_seed(9)
    one, other = (torch.randn(rows, columns, generator=generator).to(dtype) for columns in (left, right))
    return one, other, torch.randn(left, right, generator=generator)


def use_kernel(monkeypatch: pytest.MonkeyPatch, use: bool) -> None:
    monkeypatch.setattr(product, "_kernel_is_faster", lambda: use)


# Single numbers, sides that end within a vector, whole panels of columns, and more of each than are packed at a time.
OVER_ROWS = [(0, 3, 2), (3, 0, 2), (3, 2, 0), (1, 1, 1), (2, 65, 1), (255, 7, 33), (257, 64, 128), (1031, 200, 1100)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("sizes", OVER_ROWS)
def test_kernel_over_rows(
    monkeypatch: pytest.MonkeyPatch, isa: str, sizes: tuple[int, int, int], adds: bool, dtype: torch.dtype
) -> None:
    """As exact as float32 sums, of bfloat16 too: nothing is rounded to it."""
    use_kernel(monkeypatch, True)
    left, right, add = factors(*sizes, dtype)
    truth = left.double().T @ right.double() + (add.double() if adds else 0)
    torchs = left.float().T @ right.float() + (add if adds else 0)
    ours = product_over_rows(left, right, add.clone() if adds else None)
    assert ours.dtype == torch.float32
    assert_as_exact([ours], [torchs], [truth], sizes[0])
    view = left.t().contiguous().t()  # another layout is copied
    assert torch.equal(product_over_rows(view, right, add.clone() if adds else None), ours)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(513, 30, 700), (40, 900, 90)])
def test_threads_do_not_change_a_bit(
    monkeypatch: pytest.MonkeyPatch, two_threads: None, sizes: tuple[int, int, int], dtype: torch.dtype
) -> None:
    """Whether they share the left columns or, where these are few, the right ones."""
    use_kernel(monkeypatch, True)
    left, right, _ = factors(*sizes, dtype)
    two = product_over_rows(left, right)
    torch.set_num_threads(1)
    assert torch.equal(two, product_over_rows(left, right))


@pytest.mark.parametrize("adds", [False, True])
def test_torchs_products_over_rows(monkeypatch: pytest.MonkeyPatch, adds: bool) -> None:
    use_kernel(monkeypatch, False)
    for dtype, rtol in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        left, right, add = factors(90, 20, 11, dtype)
        truth = left.double().T @ right.double() + (add.double() if adds else 0)
        ours = product_over_rows(left, right, add if adds else None)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), truth, rtol=rtol, atol=10 * rtol)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpus_products_over_rows_are_float32_at_once(dtype: torch.dtype) -> None:
    """The product neither rounds to bfloat16 nor converts. No GPU computes here."""
    with FakeTensorMode(), Dispatched() as dispatched:
        left, right = (torch.empty(7, columns, dtype=dtype, device="cuda") for columns in (5, 3))
        dispatched.names.clear()
        found = product_over_rows(left, right)
    assert (found.dtype, found.shape, found.is_contiguous()) == (torch.float32, (5, 3), True)
    assert "aten::mm" in dispatched.names
    assert "aten::_to_copy" not in dispatched.names


@pytest.mark.parametrize(
    ("instruction_set", "intel", "expected"),
    [
        ("avx512_bf16", False, True),
        ("avx512", False, True),
        ("avx512_bf16", True, False),
        ("amx", False, False),
        ("avx2", False, False),
        ("neon_bf16", False, False),
    ],
)
def test_kernel_is_taken_where_it_was_measured(
    monkeypatch: pytest.MonkeyPatch, instruction_set: str, intel: bool, expected: bool
) -> None:
    monkeypatch.setattr(native, "isa", lambda: instruction_set)
    monkeypatch.setattr(native, "cpu_is_intel", lambda: intel)
    monkeypatch.setattr(product, "_kernel_is_faster", product._kernel_is_faster.__wrapped__)  # without its cache
    assert summed_by_kernel(CPU) is expected
    assert not summed_by_kernel(torch.device("cuda"))
