"""Collectives on real ranks: sums against float64 and against one tree, shares of tensors, a barrier."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from support.ranks import on_ranks
from support.small_run import ALONE
from torch import Tensor

from bertfast.distributed.collectives import AllReduce, RankSum, SharedOut, from_rank_0, wait_for_all
from bertfast.distributed.world import World

# 27 numbers, which 2 and 4 ranks can't share evenly; among them an empty tensor and a scalar.
SHAPES = [(3, 5), (), (7,), (0,), (2, 2)]


def values(rank: int, call: int) -> list[Tensor]:
    """A rank's tensors, of a size of its own, so that the order of a sum shows in its bits."""
    generator = torch.Generator().manual_seed(100 * call + rank)
    made = [10.0**rank * torch.randn(shape, generator=generator) for shape in SHAPES]
    return [made[0].T.contiguous().T, *made[1:]]  # the first one's rows are not in one piece


def sums(world: World, kind: str) -> tuple[list[list[Tensor]], bool]:
    """The results of two calls; and whether both used the same memory and left their arguments unchanged."""
    like = values(world.rank, 0)
    add = AllReduce(like) if kind == "all-reduce" else RankSum(like, world.size)
    found, places, kept = [], [], True
    for call in range(2):
        given = values(world.rank, call)
        result = add(given)
        found.append([each.clone() for each in result])
        places.append([each.data_ptr() for each in result])
        kept = kept and all(map(torch.equal, given, values(world.rank, call)))
    return found, kept and places[0] == places[1]


def tree(parts: tuple[Tensor, ...]) -> Tensor:
    half = len(parts) // 2
    return tree(parts[:half]) + tree(parts[half:]) if half else parts[0]


DTYPES = [torch.float32, torch.bfloat16]
SHARES = [[], [(3,)], [(2, 3), (5,), (), (0, 4), (1, 1), (7,), (2,)]]


def content(i: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.full(shape, 3.5 + i, dtype=dtype)


def shared(world: World) -> list[tuple[list[int], list[Tensor]]]:
    """For each choice of shapes and dtype, the numbers of the rank's own tensors, and what it has in the end."""
    results = []
    for shapes in SHARES:
        for dtype in DTYPES:
            out = SharedOut(shapes, dtype, world)
            for i in out.mine:
                out.tensors[i].copy_(content(i, shapes[i], dtype))
            out.exchange()
            results.append((list(out.mine), [each.clone() for each in out.tensors]))
    return results


def met(world: World, folder: Path) -> int:
    """How many ranks have reached the barrier when it lets this one go. The last rank has the most to do before it."""
    for i in range(world.rank):
        (folder / f"{world.rank} {i}").write_bytes(bytes(1 << 20))
    (folder / f"{world.rank} is here").touch()
    wait_for_all(world)
    return len(list(folder.glob("* is here")))


class Done(NamedTuple):
    """What a rank has of every collective."""

    all_reduced: tuple[list[list[Tensor]], bool]
    in_a_tree: tuple[list[list[Tensor]], bool] | None
    shared: list[tuple[list[int], list[Tensor]]]
    numbers: list[int]
    met: int


NUMBERS = [0, -5, 2**62 + 3]


def everything(world: World, folder: Path) -> Done:
    return Done(
        sums(world, "all-reduce"),
        sums(world, "tree") if world.size != 3 else None,  # no power of two
        shared(world),
        [from_rank_0(world, number + world.rank) for number in NUMBERS],
        met(world, folder),
    )


@pytest.fixture(scope="module", params=[2, 3, 4])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Done]:
    return on_ranks(request.param, tmp_path_factory.mktemp("ranks"), everything, tmp_path_factory.mktemp("met"))


def given(ranks: list[Done], call: int) -> list[tuple[Tensor, ...]]:
    """Each tensor, as all ranks have it."""
    return list(zip(*(values(rank, call) for rank in range(len(ranks))), strict=True))


def test_all_reduce(ranks: list[Done]) -> None:
    first, held = ranks[0].all_reduced
    for call, found in enumerate(first):
        assert [each.shape for each in found] == [torch.Size(shape) for shape in SHAPES]
        for each, of_ranks in zip(found, given(ranks, call), strict=True):
            exact = torch.stack(of_ranks).double().sum(0)
            torch.testing.assert_close(each.double(), exact, rtol=1e-6, atol=1e-6 * 10 ** len(ranks))
    for theirs, theirs_held in (each.all_reduced for each in ranks):
        assert held and theirs_held
        assert all(all(map(torch.equal, one, other)) for one, other in zip(first, theirs, strict=True))


def test_a_rank_sum_is_one_tree(ranks: list[Done]) -> None:
    if len(ranks) == 3:
        pytest.skip("three ranks are no power of two")
    for found, held in (each.in_a_tree for each in ranks if each.in_a_tree):
        assert held
        for call, tensors in enumerate(found):
            expected = [tree(each) for each in given(ranks, call)]
            assert all(map(torch.equal, tensors, expected))
            if len(ranks) > 2:  # else every order gives these bits
                assert not torch.equal(expected[0], sum(given(ranks, call)[0]))


def check_shared(of_ranks: list[list[tuple[list[int], list[Tensor]]]]) -> None:
    cases = [(shapes, dtype) for shapes in SHARES for dtype in DTYPES]
    for (shapes, dtype), *found in zip(cases, *of_ranks, strict=True):
        expected = [content(i, shape, dtype) for i, shape in enumerate(shapes)]
        numbers = list(range(len(shapes)))
        assert [mine for mine, _ in found] == [numbers[rank :: len(of_ranks)] for rank in range(len(of_ranks))]
        for _, tensors in found:
            assert len(tensors) == len(shapes)
            assert all(map(torch.equal, tensors, expected))


def test_every_rank_has_all_that_the_ranks_computed(ranks: list[Done]) -> None:
    """Also with fewer tensors than ranks, and with none."""
    check_shared([each.shared for each in ranks])


def test_a_number_and_a_barrier(ranks: list[Done]) -> None:
    assert [each.numbers for each in ranks] == [NUMBERS] * len(ranks)
    assert [each.met for each in ranks] == [len(ranks)] * len(ranks)


def test_a_world_of_one_needs_no_process_group(tmp_path: Path) -> None:
    check_shared([shared(ALONE)])
    assert [from_rank_0(ALONE, number) for number in NUMBERS] == NUMBERS
    assert met(ALONE, tmp_path) == 1
