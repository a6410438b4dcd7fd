"""Rank 0's weights and optimizer state on every rank, whatever the others began with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.op_cases.adam import scalar
from support.ranks import on_ranks
from support.small_run import ALONE
from torch import nn

from bertfast.distributed.world import World
from bertfast.ops.linear import in_type
from bertfast.training.broadcast import broadcast_state
from bertfast.training.muon import Muon
from bertfast.training.optimizer import Optimizer


def begun(world: World, steps: int) -> tuple[nn.Module, Optimizer]:
    """A model with random weights of the rank's own, after `steps` steps with random gradients."""
    torch.manual_seed(world.rank)
    model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5))
    muon = Muon({model[0].weight: 1}, 1.0, torch.bfloat16, ALONE)
    optimizer = Optimizer(model.parameters(), torch.bfloat16, 0.0, muon)
    for _ in range(steps):
        optimizer.step([torch.randn_like(each) for each in model.parameters()], *map(scalar, (0.1, 1, 0, 0.1)))
    return model, optimizer


def state(model: nn.Module, optimizer: Optimizer) -> list[torch.Tensor]:
    weights = [each.detach() for each in model.parameters()]
    return [*weights, *(moment for each in model.parameters() for moment in optimizer.state[each].values())]


def received(world: World, done: int) -> dict[str, Any]:
    """What a rank has after the broadcast. Rank 0 has taken `done` steps before it, the others none."""
    model, optimizer = begun(world, done if world.rank == 0 else 0)
    steps = broadcast_state(world, model, optimizer, done if world.rank == 0 else 0)
    with torch.no_grad():
        copies = [in_type(each, torch.bfloat16).clone() for each in model.parameters()]
    return {"steps": steps, "count": optimizer.count.item(), "state": state(model, optimizer), "copies": copies}


@pytest.mark.parametrize("done", [0, 2])
def test_all_ranks_have_rank_0s_state(tmp_path: Path, done: int) -> None:
    model, optimizer = begun(ALONE, done)
    expected = state(model, optimizer)
    for found in on_ranks(3, tmp_path, received, done):
        assert (found["steps"], found["count"]) == (done, done)
        assert len(found["state"]) == len(expected) == 4 + 1 + 3 * 2
        assert all(map(torch.equal, found["state"], expected))
        assert all(torch.equal(copy, each.bfloat16()) for copy, each in zip(found["copies"], expected, strict=False))


def test_a_world_of_one_keeps_its_own() -> None:
    model, optimizer = begun(ALONE, 2)
    before = [each.clone() for each in state(model, optimizer)]
    assert broadcast_state(ALONE, model, optimizer, 2) == 2
    assert all(map(torch.equal, state(model, optimizer), before))
