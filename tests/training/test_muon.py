"""Muon against float64 and torch.optim.Muon, and its update's singular values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from support.muon import as_on_a_gpu, brought_near_1, trained
from support.op_cases.adam import scalar
from support.random_model import make_config
from support.small_run import ALONE, SHARDED
from support.torch_threads import torch_threads
from torch import Tensor, nn

from bertfast.distributed.world import World
from bertfast.model import Bert
from bertfast.training import muon as module
from bertfast.training.muon import Muon, layer_matrices, orthogonalized
from bertfast.training.optimizer import Optimizer

RATE, DECAY, FACTOR = 0.02, 2.0, 0.3
SHAPES = {(24, 24): 1, (48, 24): 2, (96, 24): 1, (24, 96): 1}
"""Of the parameters, and the number of matrices in each."""


def given(steps: int, times: int = 1) -> tuple[list[nn.Parameter], list[list[Tensor]]]:
    """The parameters, each side so many `times` as large, and the gradients of each step."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(times * rows, times * columns) for rows, columns in SHAPES]
    parameters = [nn.Parameter(0.1 * torch.randn(shape, generator=generator)) for shape in shapes]
    return parameters, [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(steps)]


def ours(parameters: Sequence[nn.Parameter], dtype: torch.dtype = torch.float32, world: World = SHARDED) -> Optimizer:
    muon = Muon(dict(zip(parameters, SHAPES.values(), strict=True)), RATE / 0.5, dtype, world)
    return Optimizer(parameters, dtype, DECAY, muon)


def take(optimizer: Optimizer, gradients: Sequence[Sequence[Tensor]], refused: float = 0.0) -> None:
    for each in gradients:
        optimizer.step(each, scalar(0.5), scalar(FACTOR), scalar(refused), scalar(0.5))


def movement(after: Sequence[Tensor], before: Sequence[Tensor]) -> Tensor:
    return torch.cat([(one.detach().double() - other).flatten() for one, other in zip(after, before, strict=True)])


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("steps", [1, 10])
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-4), (torch.bfloat16, 0.06)])
@pytest.mark.parametrize("way", ["a matrix at a time", "together", "together, on a GPU"])
def test_against_float64(
    monkeypatch: pytest.MonkeyPatch, steps: int, dtype: torch.dtype, allowed: float, way: str
) -> None:
    if way.endswith("GPU"):
        as_on_a_gpu(monkeypatch)
    parameters, gradients = given(steps)
    before = [each.detach().clone() for each in parameters]
    take(ours(parameters, dtype, SHARDED if way == "a matrix at a time" else ALONE), gradients)
    expected = []
    for number, (weight, count) in enumerate(zip(before, SHAPES.values(), strict=True)):
        of_one = [(FACTOR * each[number]).chunk(count) for each in gradients]
        matrices = zip(weight.chunk(count), *of_one, strict=True)
        expected.append(torch.cat([trained(first, rest, RATE, DECAY) for first, *rest in matrices]))
    assert distance(movement(parameters, before), movement(expected, before)) < allowed


def test_torchs_muon_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16, as torch's always is, with gradients of rank 1, whose norms are all the same. No parameter holds two
    matrices there.
    """
    monkeypatch.setitem(SHAPES, (48, 24), 1)
    parameters, gradients = given(10)
    gradients = [[each[:, :1] * first[0] for each, first in zip(step, gradients[0], strict=True)] for step in gradients]
    theirs = [nn.Parameter(each.detach().clone()) for each in parameters]
    before = [each.detach().clone() for each in parameters]
    take(ours(parameters, torch.bfloat16), gradients)
    optimizer = torch.optim.Muon(theirs, lr=RATE, weight_decay=DECAY, ns_steps=module.NEWTON_SCHULZ_STEPS)
    for of_step in gradients:
        for parameter, gradient in zip(theirs, of_step, strict=True):
            parameter.grad = FACTOR * gradient
        optimizer.step()
    assert distance(movement(parameters, before), movement(theirs, before)) < 0.06


@pytest.mark.parametrize(("dtype", "slack"), [(torch.float32, 1e-4), (torch.bfloat16, 0.06)])
@pytest.mark.parametrize("shape", [(64, 64), (256, 64), (64, 256)])
def test_singular_values_come_near_1(dtype: torch.dtype, slack: float, shape: tuple[int, int]) -> None:
    """Values over a decade come between 0.68 and 1.21, and singular vectors stay, whatever the gradient's size."""
    torch.manual_seed(0)
    u, _, vt = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    values = torch.logspace(0, -1, 64, dtype=torch.float64)
    matrices = torch.stack([u * values @ vt, -1e-5 * (u * values @ vt), torch.zeros(shape)])
    found = orthogonalized(matrices.float(), dtype).double()
    assert found.isfinite().all() and not found[2].any()
    for one, sign in ((found[0], 1), (found[1], -1)):
        rotated = sign * u.T @ one @ vt.T
        assert (rotated - rotated.diag().diag()).norm() < 4 * slack
        found_values = torch.linalg.svdvals(one)
        assert 0.68 - slack < found_values.min() and found_values.max() < 1.21 + slack


def test_what_the_coefficients_promise() -> None:
    """For every singular value from 0.018 of the norm on; smaller ones stay below."""
    values = brought_near_1(torch.logspace(math.log10(0.018), 0, 100_001, dtype=torch.float64))
    assert values.min() > 0.68 and values.max() < 1.21


def test_matrices_of_one_shape_share_products() -> None:
    """At most 16 of them over all ranks, where no order of sums is promised; else each has its own."""
    parameters = [nn.Parameter(torch.zeros(rows, 3)) for rows in (4, 5, 34 * 4, 5)]
    counts = dict(zip(parameters, (1, 1, 34, 1), strict=True))
    two = ALONE._replace(size=2)
    for world, sizes in ((ALONE, [16, 16, 3, 2]), (two, [8, 8, 8, 8, 3, 2]), (SHARDED, [1] * 37)):
        assert [len(group) for group in Muon(counts, 1.0, torch.float32, world)._momenta] == sizes


def test_each_matrix_of_a_layer_by_itself() -> None:
    model = Bert(make_config())
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {names[parameter]: count for parameter, count in layer_matrices(model).items()}
    in_layers = [name for name, each in model.layers.named_parameters(prefix="layers") if each.dim() == 2]
    assert sorted(found) == sorted(in_layers)
    assert {name for name, count in found.items() if count != 1} == {f"layers.{i}.key_value.weight" for i in range(3)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """One thread computes a matrix, and each by itself, however many threads there are."""
    results, seen = [], []

    def noting(matrices: Tensor, dtype: torch.dtype) -> Tensor:
        seen.append((len(matrices), torch.get_num_threads()))
        return orthogonalized(matrices, dtype)

    monkeypatch.setattr(module, "orthogonalized", noting)
    for threads in (1, 2, 3):
        with torch_threads(threads):
            parameters, gradients = given(2, times=8)
            take(ours(parameters, dtype), gradients)
            results.append(parameters)
    assert seen == [(1, 1)] * sum(SHAPES.values()) * 2 * 3
    for others in results[1:]:
        assert all(map(torch.equal, others, results[0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_refused_step_changes_nothing(dtype: torch.dtype) -> None:
    """And has no effect on the next step."""
    parameters, gradients = given(3)
    once, _ = given(3)
    optimizer, other = ours(parameters, dtype), ours(once, dtype)
    for each in (optimizer, other):
        take(each, gradients[:2])
    take(optimizer, [[torch.full_like(each, torch.nan) for each in gradients[0]]], refused=1.0)
    for step in range(2):
        assert all(map(torch.equal, parameters, once))
        for mine, its in zip(optimizer.state.values(), other.state.values(), strict=True):
            assert torch.equal(mine["momentum"], its["momentum"])
        if step == 0:
            take(optimizer, gradients[2:])
            take(other, gradients[2:])
