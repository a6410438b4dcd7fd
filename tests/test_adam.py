"""adam against torch.optim.Adam in float64, and beside torch's fused one; the copies that the optimizer keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from numerics import assert_as_exact, assert_equal
from torch import Tensor

from bertfast.ops import reference
from bertfast.ops.adam import adam
from bertfast.ops.linear import Copy, in_type
from bertfast.training.adam import Adam

SHAPES = [(1,), (), (0,), (3, 33), (4096,), (130, 96), (2, 0, 5), (16,), (17, 1, 300)]
FACTOR, RATE = 0.3, 0.02


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float32)


class State(NamedTuple):
    """The lists that `adam` takes."""

    parameters: list[Tensor]
    gradients: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    copies: list[Tensor] | None

    def written(self) -> list[Tensor]:
        return [*self.parameters, *self.exp_avgs, *self.exp_avg_sqs, *(self.copies or [])]

    def clone(self) -> State:
        return State(*(None if each is None else [tensor.clone() for tensor in each] for each in self))


def state(shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float32, copied: bool = True) -> State:
    generator = torch.Generator().manual_seed(len(shapes))
    parameters, gradients = ([torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2))
    copies = [torch.empty(shape, dtype=torch.bfloat16) for shape in shapes] if copied else None
    cast = [[each.to(dtype) for each in kind] for kind in (parameters, gradients)]
    return State(*cast, *([torch.zeros_like(each) for each in cast[0]] for _ in range(2)), copies)


def on(state: State, device: str) -> State:
    return State(*(None if each is None else [tensor.to(device) for tensor in each] for each in state))


def take(function: Callable[..., None], state: State, steps: int = 5, refused: float = 0.0) -> list[Tensor]:
    """Steps with gradients that grow, turn and shrink."""
    device = state.parameters[0].device if state.parameters else "cpu"
    for count in range(1, steps + 1):
        gradients = [(3 - count) * each for each in state.gradients]
        given = state._replace(gradients=gradients)
        function(*given, *(scalar(each).to(device) for each in (count, RATE, FACTOR, refused)))
    return state.written()


def take_torchs(state: State, steps: int = 5, **options: bool) -> list[Tensor]:
    parameters = [torch.nn.Parameter(each.clone()) for each in state.parameters]
    optimizer = torch.optim.Adam(parameters, lr=scalar(RATE).double(), **options)
    for count in range(1, steps + 1):
        for parameter, gradient in zip(parameters, state.gradients, strict=True):
            parameter.grad = (3 - count) * gradient * scalar(FACTOR)
        optimizer.step()
    moments = [[optimizer.state[each][name] for each in parameters] for name in ("exp_avg", "exp_avg_sq")]
    return [*(each.detach() for each in parameters), *moments[0], *moments[1]]


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
def test_what_is_refused_changes_nothing(function: Callable[..., None]) -> None:
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
    (r"gradients\[1\] must lie on the CPU", "gradients", 1, lambda s: torch.zeros(4, device="meta")),
    (r"parameters\[1\] must lie at a multiple", "parameters", 1, lambda s: unaligned()),
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
        adam(*wrong, *(scalar(1) for _ in range(3)), scalar(0))
    assert torch.equal(wrong.parameters[1 - number], before.parameters[1 - number])


def test_lists_of_different_lengths() -> None:
    wrong = state([(3, 33), (4,)])
    wrong.gradients.pop()
    with pytest.raises(ValueError, match="gradients must be as many as parameters, 2, not 1"):
        adam(*wrong, *(scalar(1) for _ in range(3)), scalar(0))


# --- copies


@torch.no_grad()
def test_a_copy_is_used_while_it_is_current() -> None:
    weight = torch.nn.Parameter(torch.randn(3, 5))
    copy = Copy.keep(weight, torch.bfloat16)
    assert in_type(weight, torch.bfloat16) is copy.tensor
    assert in_type(weight, torch.float32) is weight
    assert in_type(weight, torch.float16).dtype == torch.float16
    for change in (lambda: weight.add_(1), lambda: weight[0].zero_(), lambda: weight.detach().neg_()):
        change()
        assert in_type(weight, torch.bfloat16) is not copy.tensor
        assert torch.equal(in_type(weight, torch.bfloat16), weight.bfloat16())
        copy.tensor.copy_(weight)
        copy.mark_current(weight)
        assert in_type(weight, torch.bfloat16) is copy.tensor
    Copy.drop(weight)
    assert in_type(weight, torch.bfloat16) is not copy.tensor
    assert not vars(weight)


def test_where_gradients_are_asked_for_they_arrive() -> None:
    weight = torch.nn.Parameter(torch.randn(3, 5))
    Copy.keep(weight, torch.bfloat16)
    in_type(weight, torch.bfloat16).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.ones(3, 5))


def test_traced_it_converts() -> None:
    """What a graph was made with must not go on in it."""
    weight = torch.nn.Parameter(torch.randn(3, 5))
    compiled = torch.compile(lambda weight: in_type(weight, torch.bfloat16) + 0, fullgraph=True, backend="eager")
    copy = Copy.keep(weight, torch.bfloat16)
    copy.tensor.zero_()
    with torch.no_grad():
        assert torch.equal(compiled(weight), weight.bfloat16())


@pytest.mark.parametrize("refused", [0.0, 1.0])
def test_copies_follow_weights_that_were_loaded(refused: float) -> None:
    parameters = [torch.nn.Parameter(torch.randn(3, 5)), torch.nn.Parameter(torch.randn(2), requires_grad=False)]
    optimizer = Adam(parameters, torch.bfloat16)
    with torch.no_grad():
        parameters[0].fill_(7)
    optimizer.step([torch.ones(3, 5)], *map(scalar, (0.1, 1, refused)))
    assert parameters[0][0, 0].item() == pytest.approx(7 - 0.1 * (1 - refused))
    assert optimizer.state[parameters[0]]["step"] == 1 - refused
    with torch.no_grad():
        kept = in_type(parameters[0], torch.bfloat16)
        assert kept is in_type(parameters[0], torch.bfloat16)
        assert torch.equal(kept, parameters[0].bfloat16())
        optimizer.close()
        assert in_type(parameters[0], torch.bfloat16) is not kept


def test_torch_knows_that_a_step_has_changed_the_weights() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    loss = (weight * weight).sum()
    Adam([weight], torch.float32).step([torch.ones(2)], *map(scalar, (0.1, 1, 0)))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
