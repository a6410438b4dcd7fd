"""Packed sequences for attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bertfast.ops import reference
from bertfast.ops.arguments import Dropout, Lengths
from bertfast.ops.attention import attention


class Packed(NamedTuple):
    query: Tensor
    key_value: Tensor
    cu_seqlens_q: Tensor
    cu_seqlens_k: Tensor
    max_seqlen: int
    row_keys: Tensor


def cumulative(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


def packed(
    lengths: list[int], heads: int, head_dim: int, dtype: torch.dtype, query_lengths: list[int] | None = None
) -> Packed:
    query_lengths = lengths if query_lengths is None else query_lengths
    generator = torch.Generator().manual_seed(sum(lengths) * 1009 + heads * 31 + head_dim)
    query = torch.randn(sum(query_lengths), heads, head_dim, generator=generator)
    key_value = torch.randn(sum(lengths), 2, heads, head_dim, generator=generator)
    # A few loud keys, so that some rows of the softmax are all but one-hot.
    key_value[::7, 0] *= 4
    return Packed(
        query.to(dtype).requires_grad_(),
        key_value.to(dtype).requires_grad_(),
        cumulative(query_lengths),
        cumulative(lengths),
        max([1, *lengths, *query_lengths]),
        torch.randint(0, 2**60, (query.shape[0],), generator=generator),
    )


def grouped(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function` of what `Packed` holds, one by one, and then p, seed and site."""
    return lambda query, key_value, cu_q, cu_k, longest, row_keys, *rule: function(
        query, key_value, Lengths(cu_q, cu_k, longest), Dropout(row_keys, *rule)
    )


native, twin = grouped(attention), grouped(reference.attention)


def of(function: Callable[..., Tensor], inputs: Packed, *rule: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda query, key_value: function(query, key_value, *inputs[2:], *rule)


def leaves(inputs: Packed) -> list[Tensor]:
    return [inputs.query, inputs.key_value]


def upstream(inputs: Packed) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(inputs.query.shape, generator=generator).to(inputs.query.dtype)


CASES = {
    "one token": ([1], 1, 8, None),
    "short": ([45, 33, 64, 12], 2, 64, None),
    "odd": ([63, 65, 1, 7], 3, 33, None),
    "long": ([511], 1, 32, None),
    "few queries": ([45, 64, 20], 2, 64, [8, 11, 1]),
    "empty": ([0, 5, 0, 0, 9, 0], 3, 48, None),
    "no query": ([5, 9], 1, 96, [0, 2]),
    "nothing": ([0, 0], 2, 16, None),
}
