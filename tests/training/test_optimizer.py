"""The optimizer: the copies that it keeps of the weights, and what torch knows of its steps."""

from __future__ import annotations

import pytest
import torch
from support.op_cases.adam import scalar

from bertfast.ops.linear import in_type
from bertfast.training.optimizer import Optimizer


@pytest.mark.parametrize("refused", [0.0, 1.0])
def test_copies_follow_weights_that_were_loaded(refused: float) -> None:
    parameters = [torch.nn.Parameter(torch.randn(3, 5)), torch.nn.Parameter(torch.randn(2), requires_grad=False)]
    optimizer = Optimizer(parameters, torch.bfloat16, 0.0)
    with torch.no_grad():
        parameters[0].fill_(7)
    optimizer.step([torch.ones(3, 5)], *map(scalar, (0.1, 1, refused)))
    assert parameters[0][0, 0].item() == pytest.approx(7 - 0.1 * (1 - refused))
    assert optimizer.count == 1 - refused
    with torch.no_grad():
        kept = in_type(parameters[0], torch.bfloat16)
        assert kept is in_type(parameters[0], torch.bfloat16)
        assert torch.equal(kept, parameters[0].bfloat16())
        optimizer.close()
        assert in_type(parameters[0], torch.bfloat16) is not kept


def test_torch_knows_that_a_step_has_changed_the_weights() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    loss = (weight * weight).sum()
    Optimizer([weight], torch.float32, 0.0).step([torch.ones(2)], *map(scalar, (0.1, 1, 0)))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
