"""Batches of few sizes: what a CUDA graph is captured for, and the sequences that fill a batch up to it.

A graph's tensors have the sizes that they had when it was captured, and no two batches have the same number of tokens.
So tokens and predictions are brought to multiples by filler sequences at the end. Nothing of these reaches a loss or a
gradient: their predictions weigh nothing, and no other sequence attends to them. How long each is follows on the device
from where the batch ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bertfast.sampling.batch import PackedBatch, Predictions, Sequences


class Bucket(NamedTuple):
    """The size of a batch with its fillers."""

    tokens: int
    predictions: int
    fillers: int


class Buckets:
    """Those of batches of up to `count` examples of up to `max_len` tokens.

    Tokens come in multiples of 1,024, or of a 32nd of the most that a batch can have; predictions in an eighth of that.
    With s the batch's own tokens, T the bucket's and D fillers, filler j begins at max(T - max_len (D - j), s + j): the
    last ones are full, those before have one token. A filler's first token is read by itself, so that none of the
    predictions may be there; the n that are missing take the last tokens but these.
    """

    def __init__(self, count: int, max_len: int) -> None:
        self._max_len = max_len
        self._tokens = max(1024, -(-count * max_len // (32 * 128)) * 128)
        self._predictions = self._tokens // 8
        self._fillers = -(-(self._tokens + self._taken(self._predictions)) // (max_len - 1))

    def of(self, tokens: Sequence[int], predictions: Sequence[int]) -> Bucket:
        """The smallest for each of several batches, of so many tokens and predictions.

        Where one batch is so much smaller than another that its fillers could not hold what is missing, there are more.
        """
        filled = -(-max(predictions) // self._predictions) * self._predictions
        fillers = self._fillers
        while True:
            ends = (own + fillers + self._taken(filled - n) for own, n in zip(tokens, predictions, strict=True))
            total = -(-max(ends) // self._tokens) * self._tokens
            if total - min(tokens) <= fillers * self._max_len:
                return Bucket(total, filled, fillers)
            fillers *= 2

    def _taken(self, predictions: int) -> int:
        """Tokens at the end of full fillers that hold so many predictions."""
        return predictions + predictions // (self._max_len - 1)

    def fill(self, batch: PackedBatch, bucket: Bucket, of: Tensor) -> tuple[Sequences, Predictions, Tensor]:
        """`batch`, whose tensors have the bucket's size, with the fillers, for `Bert.forward`.

        The weights of its own predictions are 1 / `of` (1,), an integer on the batch's device.
        """
        device, tokens, predictions = batch.labels.device, batch.input_ids.numel(), batch.labels.numel()
        end, own = batch.cu_seqlens[-1:], batch.cu_masked[-1:]
        filler = torch.arange(1, bucket.fillers + 1, dtype=torch.int32, device=device)
        ends = torch.maximum(tokens - self._max_len * (bucket.fillers - filler), end + filler)

        number = torch.arange(predictions, device=device)
        from_end = predictions - 1 - number
        is_own = number < own
        positions = torch.where(is_own, batch.masked_positions, tokens - 1 - from_end - from_end // (self._max_len - 1))
        weights = is_own / of.clamp(min=1)

        sequences = Sequences.of(batch)._replace(cu_seqlens=torch.cat([batch.cu_seqlens, ends]))
        return sequences, Predictions(positions, batch.labels, batch.next_sentence_label), weights
