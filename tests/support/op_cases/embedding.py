"""Arguments of embedding_layer_norm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SHAPES = [(1, 2, 5), (3, 33, 5), (130, 96, 300), (65, 64, 10), (700, 511, 40), (0, 8, 5)]


Ids = tuple[Tensor, Tensor, Tensor]


def inputs(tokens: int, hidden: int, words: int) -> tuple[Ids, list[Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(tokens * 10007 + hidden)
    ids = tuple(torch.randint(0, entries, (tokens,), generator=generator) for entries in (words, 2, 64))
    tables = [torch.randn(entries, hidden, generator=generator) for entries in (words, 2, 64)]
    weight, bias = torch.randn(2, hidden, generator=generator)
    keys = torch.randint(0, 2**60, (tokens,), generator=generator)
    return ids, [*tables, weight, bias], keys, torch.randn(tokens, hidden, generator=generator)  # type: ignore[return-value]


def of(
    function: Callable[..., tuple[Tensor, Tensor]],
    ids: Ids,
    keys: Tensor,
    p: float,
    dtype: torch.dtype = torch.float32,
) -> Callable[..., Tensor]:
    return lambda *leaves: function(*ids, *leaves, 1e-12, keys, p, 7, 3, dtype)[0]
