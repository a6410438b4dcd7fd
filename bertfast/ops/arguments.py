"""Groups of the ops' arguments. An op takes each group as one argument; see `bertfast.ops.op`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

PLACES_PER_SITE = 256
"""Places of the random generator that each dropout site owns. Attention has one for each of its heads."""


class Linear(NamedTuple):
    """The parameters of `x weight^T + bias`."""

    weight: Tensor
    """(out, in) float32."""
    bias: Tensor
    """(out,) float32."""

    @classmethod
    def of(cls, module: nn.Linear) -> Linear:
        return cls(module.weight, module.bias)


class Norm(NamedTuple):
    """The parameters of LayerNorm: `(x - mean) / sqrt(variance + eps) * weight + bias`, row by row."""

    weight: Tensor
    """(hidden,) float32."""
    bias: Tensor
    """(hidden,) float32."""
    eps: float

    @classmethod
    def of(cls, module: nn.LayerNorm) -> Norm:
        return cls(module.weight, module.bias, module.eps)


class Dropout(NamedTuple):
    """These values alone determine which elements of a matrix are dropped: see `reference.dropout_mask`."""

    row_keys: Tensor
    """(rows,) int64: one key for each row of the matrix."""
    p: float
    """The share that is dropped, in [0, 1)."""
    seed: int
    """Any int64."""
    site: int
    """Which dropout of the model this is, in [0, 65536)."""

    def place(self) -> int:
        """The first of the site's places. Not a property: torch 2.10 cannot compile a NamedTuple's."""
        return PLACES_PER_SITE * self.site

    def for_kernel(self) -> tuple[Tensor, float, int, int]:
        """As the kernels take it."""
        return self.row_keys.contiguous(), self.p, self.seed, self.place()


class Lengths(NamedTuple):
    """Where each packed sequence begins and ends."""

    cu_seqlens_q: Tensor
    """(sequences + 1,) int32: the queries of sequence b are the rows from `cu_seqlens_q[b]` up to the next."""
    cu_seqlens_k: Tensor
    """(sequences + 1,) int32: the same for keys and values. A sequence without keys has no queries."""
    max_seqlen: int
    """At least the queries, and the keys, of any sequence."""


class Ids(NamedTuple):
    """What the embedding layer looks up for each token."""

    word: Tensor
    """(tokens,) int64."""
    token_type: Tensor
    """(tokens,) int64."""
    position: Tensor
    """(tokens,) int64, from 0 in each sequence; all 0 in filler sequences, whose gradient is 0."""
    cu_seqlens: Tensor
    """(sequences + 1,) int32: where each sequence begins, and the end of the last."""


class Tables(NamedTuple):
    """The tables that the embedding layer looks up in."""

    word: Tensor
    """(words, hidden) float32."""
    token_type: Tensor
    """(types, hidden) float32."""
    position: Tensor
    """(positions, hidden) float32."""


class Predictions(NamedTuple):
    """What the masked-LM head predicts."""

    positions: Tensor | None
    """(n,) int64: the rows of the hidden states to predict from, none twice; None: all, in order."""
    labels: Tensor
    """(n,) int64: the right words."""
    weights: Tensor
    """(n,) float32: the weight of each prediction's loss."""


class SelfAttentionLayer(NamedTuple):
    """The parameters of the first half of a layer."""

    query: Linear
    """(hidden, hidden)."""
    key_value: Linear
    """(2 hidden, hidden), the keys' half first."""
    output: Linear
    """(hidden, hidden)."""
    norm: Norm
    """Of `hidden`."""
    heads: int
    """A divisor of `hidden`."""


class LMHead(NamedTuple):
    """The parameters of the masked-LM head."""

    transform: Linear
    """(hidden, hidden)."""
    norm: Norm
    """Of `hidden`."""
    decoder: Linear
    """(padded_vocab, hidden), the weight float32 or like the hidden states, and its gradient alike. Rows from
    `vocab_size` on are padding: they are never read, and their gradient is 0."""
    vocab_size: int


class AdamTensors(NamedTuple):
    """The tensors of a step of Adam: lists of equal length, whose tensors of one number have one shape."""

    parameters: Sequence[Tensor]
    """float32, like the next three."""
    gradients: Sequence[Tensor]
    exp_avgs: Sequence[Tensor]
    exp_avg_sqs: Sequence[Tensor]
    copies: Sequence[Tensor] | None
    """bfloat16, to be filled with the new parameters, rounded; None: there are none."""
