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


@_gather_rows.register_fake
def _(x: Tensor, positions: Tensor) -> Tensor:
    return x.new_empty(positions.shape[0], x.shape[1])


def _save(arguments: Sequence[Any], out: Tensor) -> Sequence[Any]:
    x, positions = arguments
    return positions, x.shape[0]


def _backward(saved: Sequence[Any], grad: Tensor) -> Sequence[Any]:
    positions, rows = saved
    return grad.new_zeros(rows, grad.shape[1]).index_copy_(0, positions, grad), None


_gather_rows.register_autograd(_save, _backward)
