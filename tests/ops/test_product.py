"""Products by either library against float64."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from support.numerics import assert_as_exact
from support.small_run import CPU

from bertfast._native import native
from bertfast.ops import product
from bertfast.ops.product import computed_by_onednn, matrix_product

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
