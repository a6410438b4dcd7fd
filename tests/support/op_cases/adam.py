"""States of Adam, and steps from them: ours and torch's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bertfast.ops.arguments import AdamTensors

SHAPES = [(1,), (), (0,), (3, 33), (4096,), (130, 96), (2, 0, 5), (16,), (17, 1, 300)]


FACTOR, RATE = 0.3, 0.02


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float32)


class State(AdamTensors):
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
        scalars = (scalar(each).to(device) for each in (count, RATE, FACTOR, refused))
        function(state._replace(gradients=gradients), *scalars)
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
