"""An op: a function of tensors that torch knows by name, and that an eager call reaches without asking torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def is_traced(x: Tensor) -> bool:
    """Whether `x` stands for values that are not there yet."""
    return torch.compiler.is_compiling() or type(x) not in (Tensor, nn.Parameter)


class Op:
    """`function` as `bertfast::name`, for torch.compile and opcheck; itself; and as an autograd function.

    An eager call on plain tensors goes straight to either of the latter two. torch's dispatcher took 40 to 170 us a
    call, the more arguments the more and all of it in Python, where threads take turns.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._name, self._function = name, function
        self._differentiable: Callable[..., Any] | None = None
        self.registered = torch.library.custom_op(f"bertfast::{name}", function, mutates_args=())

    def register_fake(self, function: Callable[..., Any]) -> None:
        """See `torch.library.register_fake`."""
        self.registered.register_fake(function)

    def register_autograd(self, backward: Callable[..., Any], setup_context: Callable[..., None]) -> None:
        """See `torch.library.register_autograd`; `setup_context(ctx, inputs, output)`."""
        self.registered.register_autograd(backward, setup_context=setup_context)

        def forward(ctx: Any, *arguments: Any) -> Any:  # with a `setup_context`, apply() reads the signature each time
            result = self._function(*arguments)
            setup_context(ctx, arguments, result)
            return result

        members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
        function: Any = type(self._name, (torch.autograd.Function,), members)
        self._differentiable = function.apply

    def __call__(self, *arguments: Any) -> Any:
        """The first argument is a tensor."""
        if is_traced(arguments[0]):
            return self.registered(*arguments)
        if not torch.is_grad_enabled():
            return self._function(*arguments)
        # Without gradients of its own, torch's way: it refuses where one is asked for.
        return (self._differentiable or self.registered)(*arguments)


def op(name: str) -> Callable[[Callable[..., Any]], Op]:
    """Makes an `Op` of the function under it, whose annotations are the op's schema."""
    return lambda function: Op(name, function)
