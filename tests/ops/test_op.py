"""An op whose arguments come in groups: torch's schema of it, and equal results whichever way it is called."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bertfast.ops.op import is_traced, op

CALLS: list[str] = []
"""What was computed: the function of values, or its fake."""


class Line(NamedTuple):
    scale: Tensor
    power: int
    shift: Tensor | None


class Ends(NamedTuple):
    first: Tensor
    last: Tensor


@op("test_polynomial")
def polynomial(x: Tensor, line: Line, ends: Ends, factor: float, *, note: str = "values") -> tuple[Tensor, Tensor]:
    """`factor (scale x^power + shift) + first + last`, and x again; `ends` get no gradient."""
    CALLS.append(note)
    shift = 0 if line.shift is None else line.shift
    return factor * (line.scale * x**line.power + shift) + ends.first + ends.last, x.clone()


@polynomial.register_fake
def _(x: Tensor, line: Line, ends: Ends, factor: float) -> tuple[Tensor, Tensor]:
    assert isinstance(line, Line) and isinstance(ends, Ends)
    CALLS.append("fake")
    return torch.empty_like(x), torch.empty_like(x)


def _save(arguments, result):
    x, line, _, factor = arguments
    assert isinstance(result, tuple)
    return x, line, factor


def _backward(saved, grad):
    x, line, factor = saved
    assert isinstance(line, Line) and isinstance(line.power, int) and isinstance(factor, float)
    assert grad.is_contiguous()
    of_x = factor * grad * line.scale * line.power * x ** (line.power - 1)
    return of_x, (factor * grad * x**line.power, None, None if line.shift is None else factor * grad), None, None


polynomial.register_autograd(_save, _backward)


@op("test_doubled")
def doubled(x: Tensor) -> Tensor:
    return 2 * x


def registered(x: Tensor, line: Line, ends: Ends, factor: float) -> tuple[Tensor, Tensor]:
    """As torch calls it: its arguments are a flat list."""
    return polynomial.registered(x, *line, *ends, factor)


def arguments(*shape: int, with_shift: bool = True) -> tuple[Tensor, Line, Ends, float]:
    torch.manual_seed(0)
    x, scale, shift, first, last = torch.rand(5, *shape, dtype=torch.float64) + 0.5
    line = Line(scale.requires_grad_(), 3, shift.requires_grad_() if with_shift else None)
    return x.requires_grad_(), line, Ends(first, last), 1.5


def plain(x: Tensor, line: Line, ends: Ends, factor: float) -> Tensor:
    return factor * (line.scale * x**3 + (0 if line.shift is None else line.shift)) + ends.first + ends.last


@pytest.fixture(autouse=True)
def nothing_called_yet():
    CALLS.clear()


def test_the_schema_is_flat():
    """Keyword-only parameters, which only callers of `function` have, are not in it."""
    assert str(polynomial.registered._opoverload._schema) == (
        "bertfast::test_polynomial(Tensor x, Tensor line_scale, SymInt line_power, Tensor? line_shift, "
        "Tensor ends_first, Tensor ends_last, float factor) -> (Tensor, Tensor)"
    )
    polynomial.function(*arguments(2), note="for the caller")
    assert CALLS == ["for the caller"]


@pytest.mark.parametrize("with_shift", [True, False])
@pytest.mark.parametrize("call", [polynomial, registered])
@pytest.mark.parametrize("shape", [(2, 3), (1,), (0, 3)])
def test_gradients(shape, call, with_shift):
    given = arguments(*shape, with_shift=with_shift)
    inputs = [each for each in (given[0], given[1].scale, given[1].shift) if each is not None]
    result, again = call(*given)
    assert result.requires_grad and not again.requires_grad
    torch.testing.assert_close(result, plain(*given))
    assert torch.equal(again, given[0])
    weight = torch.rand(1, dtype=torch.float64).expand(shape)  # strides of 0, which the backward pass must not see
    found = torch.autograd.grad(result, inputs, weight)
    torch.testing.assert_close(found, torch.autograd.grad(plain(*given), inputs, weight))


def test_torchs_own_checks():
    x, line, ends, factor = arguments(2, 3)
    torch.library.opcheck(polynomial.registered, (x, *line, *ends, factor))
    torch.library.opcheck(polynomial.registered, (x, *line._replace(shift=None), *ends, factor))


def test_without_gradients_nothing_is_kept():
    given = arguments(2)
    with torch.no_grad():
        result, _ = polynomial(*given)
    assert not result.requires_grad
    assert torch.equal(result, plain(*given).detach())


def test_a_tracer_gets_shapes_alone():
    with FakeTensorMode() as mode:
        _, line, ends, factor = arguments(4, 5)
        given = mode.from_tensor(torch.rand(4, 5)), line, ends, factor
        result, again = polynomial(*given)
    assert result.shape == again.shape == (4, 5)
    assert set(CALLS) == {"fake"}


def test_who_is_traced():
    assert not is_traced(torch.rand(2))
    assert not is_traced(nn.Parameter(torch.rand(2)))
    assert is_traced(FakeTensorMode().from_tensor(torch.rand(2)))
    assert torch.compile(lambda x: x + is_traced(x), backend="eager", fullgraph=True)(torch.zeros(1)) == 1


def test_without_a_backward_pass_a_gradient_is_refused():
    """Instead of being left out in silence."""
    assert torch.equal(doubled(torch.ones(2)), torch.full((2,), 2.0))
    result = doubled(torch.ones(2, requires_grad=True))
    with pytest.raises(RuntimeError, match=r"through bertfast\.test_doubled.*no autograd formula"):
        result.sum().backward()


def test_groups_have_to_match_the_gradients():
    """A backward pass that returns too few gradients is a programming error."""

    @op("test_short")
    def short(x: Tensor, ends: Ends) -> Tensor:
        return x + ends.first

    short.register_autograd(lambda arguments, result: (), lambda saved, grad: (grad,))
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="shorter"):
        short(x, Ends(x, x)).sum().backward()
