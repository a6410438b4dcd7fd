"""The optimizer: weight decay, the weights' copies, the head's own rate, and what torch learns about a step."""

from __future__ import annotations

import pytest
import torch
from support.op_cases.adam import scalar
from support.small_run import SHARDED

from bertfast.ops.linear import in_type
from bertfast.training.muon import Muon
from bertfast.training.optimizer import Optimizer


@pytest.mark.parametrize("refused", [0.0, 1.0])
@pytest.mark.parametrize("by_muon", [False, True])
def test_copies_follow_weights_that_were_loaded(refused: float, by_muon: bool) -> None:
    parameters = [torch.nn.Parameter(torch.randn(5, 5)), torch.nn.Parameter(torch.randn(2), requires_grad=False)]
    muon = Muon({parameters[0]: 1}, 1.0, torch.bfloat16, SHARDED) if by_muon else None
    optimizer = Optimizer(parameters, torch.bfloat16, 0.0, muon)
    with torch.no_grad():
        parameters[0].fill_(7)
    optimizer.step([torch.eye(5) + 1e-9], *map(scalar, (0.1, 1, refused, 0.1)))
    assert parameters[0][0, 0].item() == pytest.approx(7 - 0.1 * (1 - refused), abs=0.013 if by_muon else 1e-6)
    assert optimizer.count == 1 - refused
    with torch.no_grad():
        kept = in_type(parameters[0], torch.bfloat16)
        assert kept is in_type(parameters[0], torch.bfloat16)
        assert torch.equal(kept, parameters[0].bfloat16())
        optimizer.close()
        assert in_type(parameters[0], torch.bfloat16) is not kept


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_weight_decay_is_that_of_torchs_adamw(decay: float) -> None:
    """Only on parameters of two dimensions."""
    shapes = [(3, 33), (33,), (17, 5), (1,), ()]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(each.detach().double()) for each in ours]
    groups = [
        {"params": [each for each in theirs if each.dim() == 2], "weight_decay": decay},
        {"params": [each for each in theirs if each.dim() != 2], "weight_decay": 0.0},
    ]
    optimizer, truth = Optimizer(ours, torch.bfloat16, decay), torch.optim.AdamW(groups, lr=0.02)
    for _ in range(5):
        gradients = [torch.randn(shape) for shape in shapes]
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.double()
        truth.step()
        optimizer.step(gradients, *map(scalar, (0.02, 1, 0, 0.02)))
        optimizer.step([each * torch.nan for each in gradients], *map(scalar, (0.02, 1, 1, 0.02)))
    torch.testing.assert_close([each.detach() for each in ours], [each.detach().float() for each in theirs])
    with torch.no_grad():
        for each in ours:
            assert torch.equal(in_type(each, torch.bfloat16), each.bfloat16())


@pytest.mark.parametrize("by_muon", [False, True])
def test_the_head_has_a_rate_of_its_own(by_muon: bool) -> None:
    """torch's AdamW with two groups; with a rate of 0 the others keep every bit."""
    shapes = [(5, 5), (3, 7), (7,), (4, 6)]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    head = ours[1:3]
    theirs = [torch.nn.Parameter(each.detach().double()) for each in ours]
    truth = torch.optim.AdamW([{"params": theirs[1:3]}, {"params": [theirs[3]]}], weight_decay=0.0)
    muon = Muon({ours[0]: 1}, 10.0, torch.float32, SHARDED) if by_muon else None
    optimizer = Optimizer(ours, torch.bfloat16, 0.0, muon, set(head))
    before = [each.detach().clone() for each in ours]
    for step in range(6):
        rate, head_rate = (0.0, 0.3) if step < 3 else (0.01, 0.02)
        gradients = [torch.randn(shape) for shape in shapes]
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.double()
        truth.param_groups[0]["lr"], truth.param_groups[1]["lr"] = head_rate, rate
        truth.step()
        optimizer.step(gradients, *map(scalar, (rate, 1, 0, head_rate)))
        moved = [not torch.equal(each, old) for each, old in zip(ours, before, strict=True)]
        assert moved == [step >= 3, True, True, step >= 3]
    torch.testing.assert_close([each.detach() for each in ours[1:]], [each.detach().float() for each in theirs[1:]])


def test_torch_knows_that_a_step_has_changed_the_weights() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    loss = (weight * weight).sum()
    Optimizer([weight], torch.float32, 0.0).step([torch.ones(2)], *map(scalar, (0.1, 1, 0, 0.1)))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
