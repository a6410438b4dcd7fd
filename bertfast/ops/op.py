"""An op: a function of tensors that torch knows by name, and that an eager call reaches without torch's dispatcher.

An op's function takes its arguments in groups (`bertfast.ops.arguments`). torch's schemas and its autograd know only
flat lists of them, so they are flattened, and grouped again, here and nowhere else.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Group = type[Any] | None
"""The NamedTuple class of an argument; None: the argument is a single value."""


def is_traced(x: Tensor) -> bool:
    """Whether `x` is a tracer's stand-in for a tensor, without values."""
    return torch.compiler.is_compiling() or type(x) not in (Tensor, nn.Parameter)


class Op:
    """A function as the op `bertfast::name`, with its autograd.

    An eager call on plain tensors goes straight to the function or, where gradients are asked for, to an autograd
    function around it. torch's dispatcher takes 40 to 170 us a call, growing with the number of arguments, all of it in
    Python, where threads take turns. `registered` is the op that torch.compile and opcheck see.

    Keyword-only parameters are not part of the op: they are for callers of `function`.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._name, self.function = name, function
        hints = typing.get_type_hints(function)
        parameters = inspect.signature(function).parameters.values()
        names = [each.name for each in parameters if each.kind is not inspect.Parameter.KEYWORD_ONLY]
        self._groups = [_group(hints[name]) for name in names]
        self._autograd: Callable[..., Any] | None = None

        def ungrouped(*values: Any) -> Any:
            return function(*_grouped(self._groups, values))

        schema = [each for name in names for each in _ungrouped_parameters(name, hints[name])]
        ungrouped.__signature__ = inspect.Signature(schema, return_annotation=hints["return"])  # type: ignore[attr-defined]
        self.registered = torch.library.custom_op(f"bertfast::{name}", ungrouped, mutates_args=())

    def register_fake(self, function: Callable[..., Any]) -> None:
        """`function` takes the op's arguments, and returns tensors of its results' shapes and types."""
        self.registered.register_fake(lambda *values: function(*_grouped(self._groups, values)))

    def returns_like(self, function: Callable[..., Iterable[Tensor]]) -> None:
        """`function` takes the op's arguments, and returns those of its results' shapes and types."""
        self.register_fake(lambda *arguments: tuple(each.new_empty(each.shape) for each in function(*arguments)))

    def register_autograd(
        self, save: Callable[[Sequence[Any], Any], Sequence[Any]], backward: Callable[..., Sequence[Any]]
    ) -> None:
        """Makes the op's first result differentiable.

        Args:
            save: returns, from the op's arguments and its result, the values and groups that the backward pass reads.
            backward: returns, from these and the result's contiguous gradient, a gradient for each argument: None if
                the argument has none, and for a group a gradient or None for each of its values.
        """

        def setup_context(ctx: Any, arguments: Sequence[Any], result: Any) -> None:
            if isinstance(result, tuple):
                ctx.mark_non_differentiable(*result[1:])
            ctx.set_materialize_grads(False)  # else the backward pass allocates zeros as gradients of the other results
            keep(ctx, save(arguments, result))

        def forward(ctx: Any, arguments: Sequence[Any], *_: Any) -> Any:
            result = self.function(*arguments)
            setup_context(ctx, arguments, result)
            return result

        no_gradients = [None] * len(self._groups)

        def gradients(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
            grouped = no_gradients if grad is None else backward(kept(ctx), grad.contiguous())
            return (*_ungrouped_gradients(self._groups, grouped),)

        def eager_gradients(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
            return None, *gradients(ctx, grad)

        self.registered.register_autograd(
            gradients,
            setup_context=lambda ctx, inputs, output: setup_context(ctx, _grouped(self._groups, inputs), output),
        )
        # torch tracks only tensors that are arguments themselves, so they are passed flat beside the grouped arguments.
        # With a `setup_context` of its own, apply() would read the function's signature in each call.
        members = {"forward": staticmethod(forward), "backward": staticmethod(eager_gradients)}
        function: Any = type(self._name, (torch.autograd.Function,), members)
        self._autograd = function.apply

    def __call__(self, *arguments: Any) -> Any:
        """The first argument is a tensor, or a group that begins with one."""
        first = arguments[0][0] if self._groups[0] else arguments[0]
        if is_traced(first):
            return self.registered(*_ungrouped(arguments))
        if not torch.is_grad_enabled():
            return self.function(*arguments)
        if self._autograd is None:  # torch raises an error if a gradient is needed
            return self.registered(*_ungrouped(arguments))
        return self._autograd(arguments, *_ungrouped(arguments))


def op(name: str) -> Callable[[Callable[..., Any]], Op]:
    """A decorator that makes a function an `Op`, with the function's annotations as the schema."""
    return lambda function: Op(name, function)


def keep(ctx: Any, values: Sequence[Any]) -> None:
    """Keeps values and groups for the backward pass: tensors by autograd's means, others as attributes."""
    flat = _ungrouped(values)
    ctx.groups = [type(value) if isinstance(value, tuple) else None for value in values]
    ctx.others = {index: value for index, value in enumerate(flat) if not isinstance(value, Tensor)}
    for index in ctx.others:
        flat[index] = None
    ctx.save_for_backward(*flat)


def kept(ctx: Any) -> list[Any]:
    """The values and groups that `keep` has kept."""
    flat = list(ctx.saved_tensors)
    for index, value in ctx.others.items():
        flat[index] = value
    return _grouped(ctx.groups, flat)


def _group(hint: Any) -> Group:
    return hint if isinstance(hint, type) and issubclass(hint, tuple) else None


def _ungrouped_parameters(name: str, hint: Any) -> Iterable[inspect.Parameter]:
    group = _group(hint)
    hints = {name: hint} if group is None else {f"{name}_{k}": v for k, v in typing.get_type_hints(group).items()}
    return [inspect.Parameter(k, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=v) for k, v in hints.items()]


def _ungrouped(arguments: Sequence[Any]) -> list[Any]:
    values: list[Any] = []
    for argument in arguments:
        if isinstance(argument, tuple):
            values += argument
        else:
            values.append(argument)
    return values


def _grouped(groups: Sequence[Group], values: Sequence[Any]) -> list[Any]:
    arguments: list[Any] = []
    begin = 0
    for group in groups:
        if group is None:
            arguments.append(values[begin])
            begin += 1
        else:
            end = begin + len(group._fields)
            arguments.append(tuple.__new__(group, values[begin:end]))
            begin = end
    return arguments


def _ungrouped_gradients(groups: Sequence[Group], gradients: Sequence[Any]) -> list[Tensor | None]:
    values: list[Tensor | None] = []
    for group, gradient in zip(groups, gradients, strict=True):
        if group is None:
            values.append(gradient)
        else:
            values += [None] * len(group._fields) if gradient is None else gradient
    return values
