"""Rows of a matrix by number, each at most once, so that the backward pass stores and never adds."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from bertfast.ops.op import op


def gather_rows(x: Tensor, positions: Tensor) -> Tensor:
    """`out[i] = x[positions[i]]`.

    Indexing does the same, but its backward pass must reckon with a row that is gathered twice, and adds: serially on a
    CPU, after a sort on a GPU.

    Args:
        x: (rows, columns).
        positions: (n,) int64 in [0, rows), no number twice.
    """
    return cast(Tensor, _gather_rows(x, positions))


@op("gather_rows")
def _gather_rows(x: Tensor, positions: Tensor) -> Tensor:
    return x.index_select(0, positions)


@op("scatter_rows")
def _scatter_rows(x: Tensor, positions: Tensor, rows: int) -> Tensor:
    """(rows, columns): `out[positions[i]] = x[i]`, and zeros."""
    return x.new_zeros(rows, x.shape[1]).index_copy_(0, positions, x)


@_gather_rows.register_fake
def _(x: Tensor, positions: Tensor) -> Tensor:
    return x.new_empty(positions.shape[0], x.shape[1])


@_scatter_rows.register_fake
def _(x: Tensor, positions: Tensor, rows: int) -> Tensor:
    return x.new_empty(rows, x.shape[1])


def _setup_gather(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    x, positions = inputs
    ctx.save_for_backward(positions)
    ctx.rows = x.shape[0]


def _gather_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (positions,) = ctx.saved_tensors
    return _scatter_rows(grad.contiguous(), positions, ctx.rows), None


def _setup_scatter(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _scatter_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (positions,) = ctx.saved_tensors
    return _gather_rows(grad, positions), None, None


_gather_rows.register_autograd(_gather_backward, setup_context=_setup_gather)
_scatter_rows.register_autograd(_scatter_backward, setup_context=_setup_scatter)
