"""Products by torch and by the kernel, against float64."""

from __future__ import annotations

import pytest
import torch
from support.dispatched import Dispatched
from support.numerics import DTYPES, assert_as_exact
from support.small_run import CPU
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from bertfast._native import native
from bertfast.ops import product
from bertfast.ops.product import matrix_product, multiplied_by_kernel, product_over_rows

# (rows, depth, columns): single numbers, none, sides that end within a vector, whole panels, an odd depth, and more of
# each than are packed at a time: of a depth also with the left factor's rows, whose pieces are longer.
SIZES = [
    (0, 3, 2),
    (3, 0, 2),
    (3, 2, 0),
    (1, 1, 1),
    (5, 130, 7),
    (65, 2, 1),
    (7, 255, 33),
    (64, 256, 128),
    (200, 515, 1100),
    (530, 2051, 40),
    (3, 4100, 600),
]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel computes, whichever is faster here."""
    monkeypatch.setattr(product, "_kernel_is_faster", lambda: True)


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch computes, whichever is faster here."""
    monkeypatch.setattr(product, "_kernel_is_faster", lambda: False)


def stored(transposed: bool, rows: int, columns: int, dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    sides = (columns, rows) if transposed else (rows, columns)
    numbers = torch.randn(sides, generator=generator).to(dtype)
    return numbers.T if transposed else numbers


def assert_exact(
    sizes: tuple[int, int, int], left_transposed: bool, right_transposed: bool, adds: bool, dtype: torch.dtype
) -> None:
    rows, depth, columns = sizes
    left = stored(left_transposed, rows, depth, dtype, seed=7)
    right = stored(right_transposed, depth, columns, dtype, seed=8)
    add = stored(False, rows, columns, dtype, seed=9) if adds else None
    truth = left.double() @ right.double() + (0 if add is None else add.double())
    torchs = left @ right if add is None else torch.addmm(add, left, right)
    ours = matrix_product(left, right, None if add is None else add.clone())
    assert ours.dtype == dtype
    assert_as_exact([ours], [torchs], [truth], depth)


@pytest.mark.usefixtures("kernel", "isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("left_transposed", [False, True])
@pytest.mark.parametrize("right_transposed", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_kernel(
    sizes: tuple[int, int, int], left_transposed: bool, right_transposed: bool, adds: bool, dtype: torch.dtype
) -> None:
    assert_exact(sizes, left_transposed, right_transposed, adds, dtype)


@pytest.mark.usefixtures("by_torch")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("left_transposed", [False, True])
@pytest.mark.parametrize("right_transposed", [False, True])
@pytest.mark.parametrize("sizes", [*SIZES, (1024, 8, 16), (1025, 32, 3), (2500, 16, 24)])
def test_torchs(
    sizes: tuple[int, int, int], left_transposed: bool, right_transposed: bool, adds: bool, dtype: torch.dtype
) -> None:
    assert_exact(sizes, left_transposed, right_transposed, adds, dtype)


@pytest.mark.usefixtures("kernel", "isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("left_transposed", [False, True])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_kernel_over_rows(sizes: tuple[int, int, int], adds: bool, left_transposed: bool, dtype: torch.dtype) -> None:
    """As exact as float32 sums, of bfloat16 too: nothing is rounded to it."""
    columns, rows, others = sizes
    left = stored(left_transposed, rows, columns, dtype, seed=7)
    right = stored(False, rows, others, dtype, seed=8)
    add = stored(False, columns, others, torch.float32, seed=9) if adds else None
    truth = left.double().T @ right.double() + (0 if add is None else add.double())
    torchs = left.float().T @ right.float() + (0 if add is None else add)
    ours = product_over_rows(left, right, None if add is None else add.clone())
    assert ours.dtype == torch.float32
    assert_as_exact([ours], [torchs], [truth], rows)


@pytest.mark.usefixtures("by_torch")
@pytest.mark.parametrize("adds", [False, True])
def test_torchs_over_rows(adds: bool) -> None:
    for dtype, rtol in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        left, right = stored(False, 90, 20, dtype, seed=7), stored(False, 90, 11, dtype, seed=8)
        add = stored(False, 20, 11, torch.float32, seed=9)
        truth = left.double().T @ right.double() + (add.double() if adds else 0)
        ours = product_over_rows(left, right, add if adds else None)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), truth, rtol=rtol, atol=10 * rtol)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("dtype", DTYPES)
def test_other_layouts_are_copied(dtype: torch.dtype) -> None:
    left, right = stored(False, 20, 60, dtype, seed=7), stored(False, 30, 14, dtype, seed=8)
    ours = matrix_product(left[:, ::2], right[:, ::2], add=torch.zeros(7, 20, dtype=dtype).T)
    assert torch.equal(ours, matrix_product(left[:, ::2].contiguous(), right[:, ::2].contiguous()))


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("sizes", [(30, 513, 2100), (900, 400, 90), (600, 3000, 40)])
def test_threads_do_not_change_a_bit(
    two_threads: None, sizes: tuple[int, int, int], transposed: bool, dtype: torch.dtype
) -> None:
    """Whether they share the columns, the rows or, where these are few, both."""
    rows, depth, columns = sizes
    left, right = stored(transposed, rows, depth, dtype, seed=7), stored(False, depth, columns, dtype, seed=8)
    two = matrix_product(left, right)
    torch.set_num_threads(1)
    assert torch.equal(two, matrix_product(left, right))


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("right_transposed", [False, True])
def test_a_row_is_the_same_whatever_stands_beside_it(right_transposed: bool, dtype: torch.dtype) -> None:
    left = stored(False, 700, 2500, dtype, seed=7)
    right = stored(right_transposed, 2500, 70, dtype, seed=8)
    whole = matrix_product(left, right)
    for rows in (slice(0, 1), slice(5, 206), slice(513, 700)):
        assert torch.equal(matrix_product(left[rows], right), whole[rows])


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
    for dtype in DTYPES:
        assert multiplied_by_kernel(CPU, dtype) is expected
        assert not multiplied_by_kernel(torch.device("cuda"), dtype)
    assert not multiplied_by_kernel(CPU, torch.float16)
