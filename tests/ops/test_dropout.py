"""Dropout: the draws of docs/sampling.md, whatever computes them."""

from __future__ import annotations

import math

import pytest
import torch
from support.dropout_draws import ROUNDS, half
from support.reference import philox4x32
from torch import Tensor

from bertfast.ops import reference
from bertfast.ops.arguments import Dropout, Norm
from bertfast.ops.layer_norm import dropout_add_layer_norm


def kept(keys: Tensor, columns: int, p: float, seed: int, site: int) -> Tensor:
    return reference.apply_dropout(torch.ones(len(keys), columns), Dropout(keys, p, seed, site)) != 0


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


@pytest.mark.parametrize("p", [1e-12, 0.2, 0.5, 0.999])
@pytest.mark.parametrize("columns", [2, 33, 63, 64, 65, 96, 511, 1500])
def test_a_kernel_drops_what_the_rule_says(isa: str, columns: int, p: float) -> None:
    """The normalised rows of dropped ones are above 0 where an element was kept, and all 0 where all were, or none."""
    keys = torch.randint(-(2**63), 2**63 - 1, (200,), generator=torch.Generator().manual_seed(columns))
    dropout, norm = Dropout(keys, p, -7, 65535), Norm(torch.ones(columns), torch.zeros(columns), 1e-12)
    found = dropout_add_layer_norm(torch.ones(200, columns), torch.zeros(200, columns), norm, dropout) > 0
    mask = reference.dropout_mask(dropout, columns, dropout.place())
    assert torch.equal(found, mask & ~mask.all(1, keepdim=True))


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5])
def test_share_and_scale(p: float) -> None:
    rows, columns = 2000, 512
    out = reference.apply_dropout(torch.ones(rows, columns), Dropout(torch.arange(rows), p, 3, 1))
    mask = out != 0
    assert torch.all(out[mask] == torch.tensor(1 / (1 - p)))
    n = rows * columns
    # Five standard deviations of the binomial, over all, and a chi-squared bound over columns.
    assert abs(mask.sum().item() - n * (1 - p)) < 5 * math.sqrt(n * p * (1 - p))
    chi2 = ((mask.sum(0) - rows * (1 - p)) ** 2 / (rows * p * (1 - p))).sum().item()
    assert abs(chi2 - columns) < 5 * math.sqrt(2 * columns)


def test_rows_sites_and_seeds_are_independent() -> None:
    keys = torch.arange(64)
    masks = [kept(keys, 256, 0.5, seed, site) for seed, site in [(0, 0), (1, 0), (0, 1), (1 << 32, 0)]]
    masks += [kept(keys + (1 << 32), 256, 0.5, 0, 0), kept(keys + 64, 256, 0.5, 0, 0)]
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert abs((a == b).double().mean().item() - 0.5) < 5 * 0.5 / math.sqrt(a.numel())


def test_columns_of_one_draw_are_independent() -> None:
    mask = kept(torch.arange(4000), 64, 0.5, 0, 0)
    for distance in range(1, 16):
        agree = mask[:, distance:] == mask[:, :-distance]
        assert abs(agree.double().mean().item() - 0.5) < 5 * 0.5 / math.sqrt(agree.numel())


def test_a_row_depends_on_its_key_alone() -> None:
    keys = torch.randint(-(2**63), 2**63 - 1, (6,), generator=torch.Generator().manual_seed(0))
    order = torch.tensor([3, 1, 5])
    assert torch.equal(kept(keys[order], 96, 0.2, 1, 2), kept(keys, 96, 0.2, 1, 2)[order])


@pytest.mark.parametrize(
    ("keys", "p", "site", "error", "refused"),
    [
        (torch.arange(4), 0.1, 0, ValueError, "row_keys must have the shape"),
        (torch.arange(3), 1.0, 0, ValueError, "p must be in"),
        (torch.arange(3), -0.1, 0, ValueError, "p must be in"),
        (torch.arange(3), 0.1, 65536, ValueError, "a dropout's site must be in"),
        (torch.arange(3).int(), 0.1, 0, TypeError, "row_keys must be int64"),
    ],
)
def test_kernels_refuse_a_wrong_rule(keys: Tensor, p: float, site: int, error: type[Exception], refused: str) -> None:
    x, norm = torch.ones(3, 4), Norm(torch.ones(4), torch.zeros(4), 1e-12)
    with pytest.raises(error, match=refused):
        dropout_add_layer_norm(x, x, norm, Dropout(keys, p, 0, site))
