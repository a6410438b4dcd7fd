"""The two forms of a batch: packed, as the model takes it, and padded."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class PackedBatch(NamedTuple):
    """Examples one after another, without padding.

    Example i has the tokens cu_seqlens[i]:cu_seqlens[i + 1] and the predictions cu_masked[i]:cu_masked[i + 1]. Filler
    sequences can follow (bertfast.sampling.padding); cu_masked and next_sentence_label don't include them.
    """

    input_ids: Tensor
    """(tokens,) int64, the masked text."""
    token_type_ids: Tensor
    """(tokens,) int64: 0 up to and including the first [SEP], then 1."""
    position_ids: Tensor
    """(tokens,) int64, from 0 in each example."""
    cu_seqlens: Tensor
    """(count + 1,) int32, and one more for each filler sequence."""
    masked_positions: Tensor
    """(predictions,) int64, ascending: indices into the packed tokens."""
    cu_masked: Tensor
    """(count + 1,) int32."""
    labels: Tensor
    """(predictions,) int64: the original tokens at these positions."""
    next_sentence_label: Tensor
    """(count,) int64: 0 true next (or in order), 1 not; empty without pairs."""
    row_keys: Tensor
    """(tokens,) int64: example number * max_len + position, unique to each token of a run; dropout's key."""
    max_seqlen: int
    """An upper bound on the sequences' lengths."""


class PaddedBatch(NamedTuple):
    """Examples padded to max_len, with predictions padded to the maximum number of an example."""

    input_ids: Tensor
    """(count, max_len) int64, the masked text."""
    token_type_ids: Tensor
    """(count, max_len) int64: 0 up to and including the first [SEP], then 1; 0 for padding."""
    attention_mask: Tensor
    """(count, max_len) int64: 1 for a token, 0 for padding."""
    masked_positions: Tensor
    """(count, max_predictions) int64, ascending; 0 for padding."""
    labels: Tensor
    """(count, max_predictions) int64: the original tokens at these positions; 0 for padding."""
    mlm_weights: Tensor
    """(count, max_predictions) float32: 1 for a prediction, 0 for padding."""
    next_sentence_label: Tensor
    """(count,) int64: 0 true next (or in order), 1 not; empty without pairs."""
