"""Batches rounded up to sizes that come again.

oneDNN compiles a program for each shape of a product: those of a shard take about as long as its whole step, and half a
megabyte each. And memory that one batch has freed fits the next only if that is no longer. But the number of a batch's
tokens is hardly ever seen twice. So one more sequence, of token 0, brings tokens to a multiple of a power of two, and
predictions to one of `PREDICTIONS`. Nothing of it reaches a loss or a gradient: its predictions weigh nothing, and no
other sequence attends to it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bertfast.sampling.batch import Predictions, Sequences

LEAST_TOKENS = 128
PREDICTIONS = 64


def token_multiple(tokens: int) -> int:
    """What `tokens` are brought to a multiple of: the power of two from a 32nd to a 16th of them, or `LEAST_TOKENS`."""
    return max(LEAST_TOKENS, (1 << (tokens // 16).bit_length()) // 2)


def rounded(sequences: Sequences, predictions: Predictions, weights: Tensor) -> tuple[Sequences, Predictions, Tensor]:
    """`sequences` with one more at the end, and with its `predictions` and `weights`, for `Bert.forward`."""
    tokens = sequences.input_ids.numel()
    asked = -weights.numel() % PREDICTIONS
    multiple = token_multiple(tokens)
    length = -tokens % multiple
    while length <= asked:  # its first token is read by itself
        length += multiple
    end = tokens + length
    padded = Sequences(
        F.pad(sequences.input_ids, (0, length)),
        F.pad(sequences.token_type_ids, (0, length)),
        F.pad(sequences.position_ids, (0, length)),
        F.pad(sequences.cu_seqlens, (0, 1), value=end),
        max(sequences.max_seqlen, length),
        F.pad(sequences.row_keys, (0, length)),
    )
    masked_positions = torch.cat([predictions.masked_positions, torch.arange(end - asked, end)])
    labels = F.pad(predictions.labels, (0, asked))
    return padded, Predictions(masked_positions, labels, predictions.next_sentence_label), F.pad(weights, (0, asked))
