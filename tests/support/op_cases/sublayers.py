"""Arguments of self_attention and feed_forward."""

from __future__ import annotations

from collections.abc import Callable

import torch
from support.op_cases.attention import cumulative
from torch import Tensor

from bertfast.ops import reference
from bertfast.ops.arguments import Dropout, Lengths, Linear, Norm, SelfAttentionLayer
from bertfast.ops.feed_forward import feed_forward
from bertfast.ops.self_attention import self_attention

# Lengths, and how many of each sequence's tokens are queries; hidden, heads, intermediate.
CASES = {
    "all": ([45, 33, 64, 12], None, 128, 2, 256),
    "odd": ([63, 65, 1, 7], None, 96, 3, 50),
    "few": ([45, 64, 1], [8, 11, 1], 128, 2, 256),
    "empty": ([0, 5, 0, 9], [0, 2, 0, 9], 48, 3, 80),
    "nothing": ([0, 0], None, 16, 2, 24),
}


def parameters(generator: torch.Generator, *sizes: tuple[int, int]) -> list[Tensor]:
    """Weight and bias of each linear layer, (in, out), then those of a LayerNorm."""
    leaves = []
    for width, out in sizes:
        leaves += [torch.randn(out, width, generator=generator) / width**0.5, torch.randn(out, generator=generator)]
    return [*leaves, *(torch.randn(sizes[-1][1], generator=generator) for _ in range(2))]


def layers(*leaves: Tensor) -> list[Linear | Norm]:
    """What `parameters` gives, as the ops take it."""
    linears = [Linear(*leaves[i : i + 2]) for i in range(0, len(leaves) - 2, 2)]
    return [*linears, Norm(*leaves[-2:], 1e-12)]


def attention_case(
    case: str, dtype: torch.dtype, p: float, device: str = "cpu"
) -> tuple[list[Tensor], Callable[..., Callable[..., Tensor]]]:
    """The leaves, and what makes `self_attention`, its op or its twin a function of them, on `device`."""
    lengths, asked, hidden, heads, _ = CASES[case]
    generator = torch.Generator().manual_seed(len(case))
    tokens = sum(lengths)
    leaves = [torch.randn(tokens, hidden, generator=generator).to(dtype)]
    leaves += parameters(generator, (hidden, hidden), (hidden, 2 * hidden), (hidden, hidden))
    starts = cumulative(lengths).tolist()
    rows = None
    if asked is not None:  # the first token of each, and its last ones
        chosen = [
            [start, *range(end - n + 1, end)][:n] for start, end, n in zip(starts, starts[1:], asked, strict=False)
        ]
        rows = torch.tensor([row for each in chosen for row in each], device=device)
    offsets = (cumulative(lengths if asked is None else asked).to(device), cumulative(lengths).to(device))
    sequences = Lengths(*offsets, max([1, *lengths]))
    row_keys = torch.arange(tokens if rows is None else rows.numel(), device=device) * 7

    def of(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
        dropouts = (Dropout(row_keys, p, 5, 4), Dropout(row_keys, p, 5, 5))
        return lambda x, *rest: op(x, rows, sequences, SelfAttentionLayer(*layers(*rest), heads), *dropouts)

    return leaves, of


def feed_forward_case(
    case: str, dtype: torch.dtype, p: float, device: str = "cpu"
) -> tuple[list[Tensor], Callable[..., Callable[..., Tensor]]]:
    lengths, _, hidden, _, intermediate = CASES[case]
    generator = torch.Generator().manual_seed(len(case))
    leaves = [torch.randn(sum(lengths), hidden, generator=generator).to(dtype)]
    leaves += parameters(generator, (hidden, intermediate), (intermediate, hidden))
    row_keys = torch.arange(sum(lengths), device=device) * 7

    def of(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda x, *rest: op(x, *layers(*rest), Dropout(row_keys, p, 5, 4))

    return leaves, of


OPS = {
    "self_attention": (self_attention, reference.self_attention, attention_case),
    "feed_forward": (feed_forward, reference.feed_forward, feed_forward_case),
}


def upstream(out: Tensor) -> Tensor:
    return torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
