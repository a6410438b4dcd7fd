"""Gathers rows of a matrix, each at most once, so that the backward pass stores and never adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor

from bertfast.ops.op import op


def gather_rows(x: Tensor, positions: Tensor) -> Tensor:
    """`out[i] = x[positions[i]]`.

    Indexing does the same, but its backward pass must allow for a row that is gathered twice, and adds: serially on a
    CPU, after a sort on a GPU.

    Args:
        x: (rows, columns).
        positions: (n,) int64 in [0, rows), no number twice.

    Returns: (n, columns).
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


def _save_gather(arguments: Sequence[Any], out: Tensor) -> Sequence[Any]:
    x, positions = arguments
    return positions, x.shape[0]


def _gather_backward(saved: Sequence[Any], grad: Tensor) -> Sequence[Any]:
    positions, rows = saved
    return _scatter_rows(grad, positions, rows), None


def _save_scatter(arguments: Sequence[Any], out: Tensor) -> Sequence[Any]:
    _, positions, _ = arguments
    return (positions,)


def _scatter_backward(saved: Sequence[Any], grad: Tensor) -> Sequence[Any]:
    (positions,) = saved
    return _gather_rows(grad, positions), None, None


_gather_rows.register_autograd(_save_gather, _gather_backward)
_scatter_rows.register_autograd(_save_scatter, _scatter_backward)
