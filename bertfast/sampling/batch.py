"""What a batch is: packed, padded, and what `Bert.forward` takes of it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class PackedBatch(NamedTuple):
    """Examples one after another, without padding.

    Example i has the tokens cu_seqlens[i]:cu_seqlens[i + 1] and the predictions cu_masked[i]:cu_masked[i + 1].
    """

    input_ids: Tensor
    """(tokens,) int64, the masked text."""
    token_type_ids: Tensor
    """(tokens,) int64: 0 up to and including the first [SEP], then 1."""
    position_ids: Tensor
    """(tokens,) int64, from 0 in each example."""
    cu_seqlens: Tensor
    """(count + 1,) int32."""
    masked_positions: Tensor
    """(predictions,) int64, ascending: indices into the packed tokens."""
    cu_masked: Tensor
    """(count + 1,) int32."""
    labels: Tensor
    """(predictions,) int64: the tokens that stood there."""
    next_sentence_label: Tensor
    """(count,) int64: 0 true next (or in order), 1 not; empty without pairs."""
    row_keys: Tensor
    """(tokens,) int64: example number * max_len + position, which no other token of the run has."""
    max_seqlen: int
    """No example is longer: the configuration's max_len."""


class PaddedBatch(NamedTuple):
    """Examples padded to max_len, their predictions to the most that an example can have."""

    input_ids: Tensor
    """(count, max_len) int64, the masked text."""
    token_type_ids: Tensor
    """(count, max_len) int64: 0 up to and including the first [SEP], then 1; 0 for padding."""
    attention_mask: Tensor
    """(count, max_len) int64: 1 for a token, 0 for padding."""
    masked_positions: Tensor
    """(count, max_predictions) int64, ascending; 0 for padding."""
    labels: Tensor
    """(count, max_predictions) int64: the tokens that stood there; 0 for padding."""
    mlm_weights: Tensor
    """(count, max_predictions) float32: 1 for a prediction, 0 for padding."""
    next_sentence_label: Tensor
    """(count,) int64: 0 true next (or in order), 1 not; empty without pairs."""


class Sequences(NamedTuple):
    """Packed sequences: their tokens one after another, without padding."""

    input_ids: Tensor  # (T,) int64
    token_type_ids: Tensor  # (T,) int64
    position_ids: Tensor  # (T,) int64
    cu_seqlens: Tensor  # (B + 1,) int32: where each sequence begins, and the end
    max_seqlen: int
    row_keys: Tensor  # (T,) int64: a number for each token of the run, which keys its dropout

    @classmethod
    def of(cls, batch: PackedBatch) -> Sequences:
        """Those of a sampler's batch, which has the same fields and more."""
        return cls(*(getattr(batch, name) for name in cls._fields))


class Predictions(NamedTuple):
    """What the two heads are asked about a batch of `Sequences`."""

    masked_positions: Tensor  # (M,) int64: rows of the packed tokens, ascending
    labels: Tensor  # (M,) int64
    next_sentence_label: Tensor  # of the first sequences, int64: 0 = true next; (0,) where the objective has no pairs
