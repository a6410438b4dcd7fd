"""adam against torch.optim.Adam in float64, and beside torch's fused one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.numerics import assert_as_exact, assert_equal
from support.op_cases.adam import SHAPES, State, scalar, state, take, take_torchs
from torch import Tensor

from bertfast.ops import reference
from bertfast.ops.adam import adam


def test_against_float64(isa: str) -> None:
    ours = take(adam, state(SHAPES, copied=False))
    truth = take_torchs(state(SHAPES, torch.float64), capturable=False)
    assert_as_exact(ours, take_torchs(state(SHAPES), fused=True), truth, terms=5)


def test_its_twin_is_torchs_adam() -> None:
    ours = take(reference.adam, state(SHAPES, torch.float64, copied=False))
    torch.testing.assert_close(ours, take_torchs(state(SHAPES, torch.float64)), rtol=1e-12, atol=1e-12)


def test_copies_are_the_parameters_rounded(isa: str) -> None:
    ours = state(SHAPES)
    take(adam, ours)
    assert ours.copies is not None
    assert_equal(ours.copies, [each.bfloat16() for each in ours.parameters])
    assert_equal(take(adam, state(SHAPES))[: -len(SHAPES)], take(adam, state(SHAPES, copied=False)))


@pytest.mark.parametrize("function", [adam, reference.adam])
def test_a_refused_step_changes_nothing(function: Callable[..., None]) -> None:
    before = state(SHAPES)
    take(adam, before, steps=2)
    for gradient in before.gradients:
        gradient.fill_(torch.nan)
    assert_equal(take(function, before.clone(), refused=1.0), before.written())
    assert take(function, before.clone(), steps=1)[3].isnan().all()


def test_threads_do_not_change_a_bit(two_threads: None) -> None:
    shapes = [(300, 511), (70_001,), (3,)]
    two = take(adam, state(shapes))
    torch.set_num_threads(1)
    assert_equal(two, take(adam, state(shapes)))


def test_where_a_tensor_begins_does_not_change_a_bit(isa: str) -> None:
    def shifted(tensor: Tensor) -> Tensor:
        return torch.empty(tensor.numel() + 1, dtype=tensor.dtype)[1:].view(tensor.shape).copy_(tensor)

    plain = state(SHAPES)
    moved = State(*([shifted(each) for each in kind] for kind in plain))
    assert_equal(take(adam, plain), take(adam, moved))


def test_no_tensors() -> None:
    assert take(adam, state([])) == []


def unaligned() -> Tensor:
    return torch.frombuffer(bytearray(17), dtype=torch.float32, offset=1, count=4)


# Of parameters of the shapes (3, 33) and (4,): what is wrong, where, and what stands there instead.
WRONG = [
    (r"gradients\[1\] must be a torch.Tensor, not NoneType", "gradients", 1, lambda s: None),
    (r"exp_avgs\[0\] must have the shape \(3, 33\)", "exp_avgs", 0, lambda s: torch.zeros(33, 3)),
    (r"exp_avg_sqs\[1\] must be float32", "exp_avg_sqs", 1, lambda s: torch.zeros(4).double()),
    (r"copies\[0\] must be bfloat16", "copies", 0, lambda s: torch.zeros(3, 33)),
    (r"parameters\[0\] must be contiguous", "parameters", 0, lambda s: torch.zeros(33, 3).t()),
    (r"gradients\[1\] must be on the CPU", "gradients", 1, lambda s: torch.zeros(4, device="meta")),
    (r"parameters\[1\] must be aligned", "parameters", 1, lambda s: unaligned()),
    (r"parameters\[0\] must not share memory with gradients\[0\]", "gradients", 0, lambda s: s.parameters[0]),
    (r"exp_avgs\[1\] must not share memory with gradients\[0\]", "exp_avgs", 1, lambda s: s.gradients[0][0, 1:5]),
    (r"exp_avgs\[1\] must not share memory with exp_avg_sqs\[1\]", "exp_avg_sqs", 1, lambda s: s.exp_avgs[1]),
]


@pytest.mark.parametrize(("message", "kind", "number", "instead"), WRONG)
def test_wrong_arguments(message: str, kind: str, number: int, instead: Callable[[State], Tensor]) -> None:
    wrong = state([(3, 33), (4,)])
    before = wrong.clone()
    getattr(wrong, kind)[number] = instead(wrong)
    with pytest.raises((TypeError, ValueError), match=message):
        adam(wrong, *(scalar(1) for _ in range(3)), scalar(0))
    assert torch.equal(wrong.parameters[1 - number], before.parameters[1 - number])


def test_lists_of_different_lengths() -> None:
    wrong = state([(3, 33), (4,)])
    wrong.gradients.pop()
    with pytest.raises(ValueError, match="gradients must have as many tensors as parameters, 2, not 1"):
        adam(wrong, *(scalar(1) for _ in range(3)), scalar(0))
