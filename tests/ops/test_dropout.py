"""Dropout: the draws of docs/sampling.md, whatever computes them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.dropout_draws import ROUNDS, half
from support.gpu import on_gpu
from support.reference import philox4x32
from torch import Tensor

from bertfast import ops
from bertfast._native import native
from bertfast.ops import kernels, reference
from bertfast.ops.arguments import Dropout
from bertfast.ops.dropout import _dropout, apply_dropout

SHAPES = [(1, 1), (3, 33), (5, 63), (4, 64), (2, 65), (6, 96), (2, 511), (2, 1500), (0, 8), (3, 0)]
DTYPES = [torch.float32, torch.bfloat16]


def dropout(x: Tensor, *values: Any) -> Tensor:
    return apply_dropout(x, Dropout(*values))


def twin_dropout(x: Tensor, *values: Any) -> Tensor:
    return reference.apply_dropout(x, Dropout(*values))


def inputs(rows: int, columns: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows * 10007 + columns)
    x = torch.randn(rows, columns, generator=generator).to(dtype)
    return x, torch.randint(-(2**63), 2**63 - 1, (rows,), generator=generator)


def test_reference_gives_the_published_vectors() -> None:
    ones = 0xFFFFFFFF
    zeros = philox4x32([0] * 4, [0] * 2, ROUNDS)
    assert zeros == (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48)
    assert philox4x32([ones] * 4, [ones] * 2, ROUNDS) == (0x5207DDC2, 0x45165E59, 0x4D8EE751, 0x8C52F662)


def test_mask_follows_the_specification() -> None:
    seed, place, p = -(2**40) - 9, 5 * 256 + 11, 0.3
    keys = [0, 1, -1, 2**62 + 12345]
    mask = reference.dropout_mask(Dropout(torch.tensor(keys), p, seed, 0), 37, place)
    threshold = math.floor((1 - p) * 2**16 + 0.5)
    for row, key in enumerate(keys):
        for column in range(37):
            assert mask[row, column].item() == (half(seed, place, key, column) < threshold)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_its_twin_bit_for_bit(isa: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    x, keys = inputs(*shape, dtype)
    for p in (1e-12, 0.2, 0.5, 0.999):
        ours, twin = dropout(x, keys, p, -7, 65535), twin_dropout(x, keys, p, -7, 65535)
        assert ours.dtype == dtype
        assert torch.equal(ours.view(torch.uint8), twin.view(torch.uint8))


def test_a_dropped_infinity_is_zero() -> None:
    x = torch.full((4, 64), math.inf)
    out = dropout(x, torch.arange(4), 0.5, 0, 0)
    assert set(out.flatten().tolist()) == {0.0, math.inf}


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5])
def test_share_and_scale(p: float) -> None:
    rows, columns = 2000, 512
    out = dropout(torch.ones(rows, columns), torch.arange(rows), p, 3, 1)
    kept = out != 0
    assert torch.all(out[kept] == torch.tensor(1 / (1 - p)))
    n = rows * columns
    # Five standard deviations of the binomial, over all, and a chi-squared bound over columns.
    assert abs(kept.sum().item() - n * (1 - p)) < 5 * math.sqrt(n * p * (1 - p))
    chi2 = ((kept.sum(0) - rows * (1 - p)) ** 2 / (rows * p * (1 - p))).sum().item()
    assert abs(chi2 - columns) < 5 * math.sqrt(2 * columns)


def test_rows_sites_and_seeds_are_independent() -> None:
    x = torch.ones(64, 256)
    keys = torch.arange(64)
    masks = [dropout(x, keys, 0.5, seed, site) != 0 for seed, site in [(0, 0), (1, 0), (0, 1), (1 << 32, 0)]]
    masks += [dropout(x, keys + (1 << 32), 0.5, 0, 0) != 0, dropout(x, keys + 64, 0.5, 0, 0) != 0]
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert abs((a == b).double().mean().item() - 0.5) < 5 * 0.5 / math.sqrt(x.numel())


def test_columns_of_one_draw_are_independent() -> None:
    kept = dropout(torch.ones(4000, 64), torch.arange(4000), 0.5, 0, 0) != 0
    for distance in range(1, 16):
        agree = kept[:, distance:] == kept[:, :-distance]
        assert abs(agree.double().mean().item() - 0.5) < 5 * 0.5 / math.sqrt(agree.numel())


def test_a_row_depends_on_its_key_alone() -> None:
    x, keys = inputs(6, 96, torch.float32)
    order = torch.tensor([3, 1, 5])
    assert torch.equal(dropout(x[order], keys[order], 0.2, 1, 2), dropout(x, keys, 0.2, 1, 2)[order])


@pytest.mark.parametrize("dtype", DTYPES)
def test_backward_drops_the_same(dtype: torch.dtype) -> None:
    x, keys = inputs(5, 65, dtype)
    x.requires_grad_()
    out = dropout(x, keys, 0.2, 9, 4)
    grad = torch.randn_like(out)
    out.backward(grad)
    assert x.grad is not None
    assert torch.equal(x.grad, twin_dropout(grad, keys, 0.2, 9, 4))
    x.grad = None
    dropout(x, keys, 0.2, 9, 4).sum().backward()  # the gradient of a sum has strides 0
    assert torch.equal(x.grad != 0, out != 0)


def test_without_dropout_nothing_is_done() -> None:
    x, keys = inputs(3, 8, torch.float32)
    assert dropout(x, keys, 0.0, 0, 0) is x


def test_threads_do_not_change_a_bit(two_threads: None) -> None:
    x, keys = inputs(700, 130, torch.bfloat16)
    two = dropout(x, keys, 0.2, 0, 0)
    torch.set_num_threads(1)
    assert torch.equal(two, dropout(x, keys, 0.2, 0, 0))


def test_opcheck() -> None:
    x, keys = inputs(5, 33, torch.float32)
    torch.library.opcheck(_dropout.registered, (x.requires_grad_(), keys, 0.2, 3, 1))
    torch.library.opcheck(_dropout.registered, (x.detach().t().contiguous().t(), keys, 0.2, 3, 1))


def test_compiles_whole() -> None:
    """Only traced here; test_model compiles the whole model."""
    x, keys = inputs(5, 33, torch.float32)
    compiled = torch.compile(
        lambda x: dropout(x, keys, 0.2, 3, 1) + twin_dropout(x, keys, 0.2, 3, 1), fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(x), 2 * dropout(x, keys, 0.2, 3, 1))


@pytest.mark.parametrize(
    ("x", "keys", "p", "site", "error"),
    [
        (torch.ones(3, 4, dtype=torch.float16), torch.arange(3), 0.1, 0, TypeError),
        (torch.ones(3, 4), torch.arange(4), 0.1, 0, ValueError),
        (torch.ones(3, 4), torch.arange(3), 1.0, 0, ValueError),
        (torch.ones(3, 4), torch.arange(3), -0.1, 0, ValueError),
        (torch.ones(3, 4), torch.arange(3), 0.1, 65536, ValueError),
        (torch.ones(3, 4), torch.arange(3).int(), 0.1, 0, TypeError),
    ],
)
def test_wrong_arguments(x: Tensor, keys: Tensor, p: float, site: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        dropout(x, keys, p, 0, site)


def test_kernels_are_named(isa: str) -> None:
    assert kernels(torch.device("cpu")) == f"native ({isa})"
    assert kernels(torch.device("cuda")) == ("native (cuda)" if native.has_cuda else "plain torch")
    assert kernels(torch.device("meta")) == "plain torch"


def test_old_gpus_have_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "has_cuda", True)
    for capability, expected in (((7, 0), "plain torch"), ((7, 5), "native (cuda)")):
        monkeypatch.setattr(ops, "capability", lambda index, found=capability: found)
        assert kernels(torch.device("cuda", 0)) == expected


def test_a_capability_is_a_constant_where_code_is_compiled() -> None:
    def function(x: Tensor) -> Tensor:
        return -x if ops.capability(x.device.index) > (5, 0) else x

    assert torch.compile(function, fullgraph=True, backend="eager")(torch.ones(1)) == -1


@on_gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_cuda_equals_cpu(shape: tuple[int, int], dtype: torch.dtype) -> None:
    x, keys = inputs(*shape, dtype)
    ours = dropout(x.cuda(), keys.cuda(), 0.2, 5, 6).cpu()
    assert torch.equal(ours, dropout(x, keys, 0.2, 5, 6))
