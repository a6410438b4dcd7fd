"""Pads batches to a few recurring sizes, so that work done for one size is reused.

Batches rarely have the same number of tokens. But a CUDA graph's tensors keep the sizes that they had at capture. On a
CPU, memory that one batch frees can hold the next only if that is no larger. And where products are oneDNN's, it
compiles a program for each shape: a shard's programs take about as long to compile as its whole step, and half a
megabyte each.

So filler sequences of token 0 at a batch's end round its tokens and predictions up to multiples. They don't affect the
loss or the gradients: their predictions have weight 0, and no other sequence attends to them. `Buckets` and `rounded`
choose the size, `fill` adds the fillers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bertfast.sampling.batch import PackedBatch

LEAST_TOKENS = 32
LEAST_PREDICTIONS = 16


class PaddedSize(NamedTuple):
    """The size of a batch, fillers included."""

    tokens: int
    predictions: int
    fillers: int
    filler_len: int
    """The maximum tokens of a filler."""


class Buckets:
    """Sizes of batches of up to `count` examples of up to `max_len` tokens, for CUDA graphs: as few as possible.

    Tokens are rounded up to a multiple of 1,024, or of a 32nd of a batch's maximum if that is more; predictions to a
    multiple of an eighth of it.
    """

    def __init__(self, count: int, max_len: int) -> None:
        self._max_len = max_len
        self._tokens = max(1024, _rounded_up(-(-count * max_len // 32), 128))
        self._predictions = self._tokens // 8
        self._fillers = -(-(self._tokens + self._tokens_for(self._predictions)) // (max_len - 1))

    def of(self, tokens: Sequence[int], predictions: Sequence[int]) -> PaddedSize:
        """The smallest size that fits several batches, given the numbers of tokens and predictions of each.

        If the batches differ so much that the fillers can't make up the difference, there are more of them.
        """
        padded = _rounded_up(max(predictions), self._predictions)
        fillers = self._fillers
        while True:
            ends = (own + fillers + self._tokens_for(padded - n) for own, n in zip(tokens, predictions, strict=True))
            total = _rounded_up(max(ends), self._tokens)
            if total - min(tokens) <= fillers * self._max_len:
                return PaddedSize(total, padded, fillers, self._max_len)
            fillers *= 2

    def _tokens_for(self, predictions: int) -> int:
        """The number of filler tokens that hold this many predictions."""
        return predictions + predictions // (self._max_len - 1)


def rounded(tokens: int, predictions: int) -> PaddedSize:
    """The size of a batch of so many tokens and predictions on a CPU: the smallest multiples, with one filler."""
    padded = _rounded_up(predictions, multiple(predictions, LEAST_PREDICTIONS))
    of_tokens = multiple(tokens, LEAST_TOKENS)
    length = -tokens % of_tokens
    while length <= padded - predictions:  # the filler's first token cannot be predicted
        length += of_tokens
    return PaddedSize(tokens + length, padded, 1, length)


def multiple(number: int, least: int) -> int:
    """What `number` is rounded up to a multiple of: a power of two, a 32nd to a 16th of it, or `least`."""
    return max(least, (1 << (number // 16).bit_length()) // 2)


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def fill(batch: PackedBatch, size: PaddedSize, weight: Tensor | float) -> tuple[PackedBatch, Tensor]:
    """A batch with fillers, and the weight of each prediction: `weight` for the batch's own, 0 for the others.

    If the batch has s tokens of its own, T in all and D fillers, filler j ends at max(T - filler_len (D - j), s + j):
    the last fillers are full, those before them have one token. The heads read a filler's first token separately, so it
    is never predicted; the fillers' predictions are at the last of their other tokens. Everything is computed on the
    batch's device, in shapes that depend only on `size`.

    Args:
        batch: as `Sampler.packed_within` makes it, with the tokens and predictions of `size`.
        weight: a float32 scalar or (1,).
    """
    device = batch.labels.device
    end, own = batch.cu_seqlens[-1:], batch.cu_masked[-1:]
    filler = torch.arange(1, size.fillers + 1, dtype=torch.int32, device=device)
    ends = torch.maximum(size.tokens - size.filler_len * (size.fillers - filler), end + filler)

    number = torch.arange(size.predictions, device=device)
    is_own = number < own
    from_end = size.predictions - 1 - number
    in_fillers = size.tokens - 1 - from_end - from_end // max(1, size.filler_len - 1)
    filled = batch._replace(
        cu_seqlens=torch.cat([batch.cu_seqlens, ends]),
        masked_positions=torch.where(is_own, batch.masked_positions, in_fillers),
        max_seqlen=max(batch.max_seqlen, size.filler_len),
    )
    return filled, (is_own * weight).float()
