"""Arguments of embedding_layer_norm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bertfast.ops.arguments import Dropout, Ids, Norm, Tables

SHAPES = [(1, 2, 5), (3, 33, 5), (130, 96, 300), (65, 64, 10), (700, 511, 40), (0, 8, 5)]


def inputs(tokens: int, hidden: int, words: int) -> tuple[Ids, list[Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(tokens * 10007 + hidden)
    words_, types = (torch.randint(0, entries, (tokens,), generator=generator) for entries in (words, 2))
    ids = Ids(words_, types, *sequences(tokens, generator))
    tables = [torch.randn(entries, hidden, generator=generator) for entries in (words, 2, 64)]
    weight, bias = torch.randn(2, hidden, generator=generator)
    keys = torch.randint(0, 2**60, (tokens,), generator=generator)
    return ids, [*tables, weight, bias], keys, torch.randn(tokens, hidden, generator=generator)


def sequences(tokens: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions, and cu_seqlens of sequences of 0 to 64 tokens."""
    lengths = torch.randint(0, 65, (2 + tokens // 16,), generator=generator)
    ends = lengths.cumsum(0).clamp(max=tokens)
    ends[-1] = tokens if tokens - ends[-2] <= 64 else ends[-1]
    assert ends[-1] == tokens
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), ends])
    starts = torch.repeat_interleave(offsets[:-1], offsets.diff())
    return torch.arange(tokens) - starts, offsets.int()


def of(
    function: Callable[..., tuple[Tensor, Tensor]],
    ids: Ids,
    keys: Tensor,
    p: float,
    dtype: torch.dtype = torch.float32,
) -> Callable[..., Tensor]:
    return lambda *leaves: both(function, ids, keys, p, dtype)(*leaves)[0]


def both(
    function: Callable[..., tuple[Tensor, Tensor]], ids: Ids, keys: Tensor, p: float, dtype: torch.dtype
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Hidden states and words of the tables, and of LayerNorm's weight and bias."""
    return lambda *leaves: function(ids, Tables(*leaves[:3]), Norm(*leaves[3:], 1e-12), Dropout(keys, p, 7, 3), dtype)
