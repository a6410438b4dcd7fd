"""BERT, as published and as `transformers.BertForPreTraining` defines it, over packed sequences.

Read it from the top: `Bert` holds the whole, then come its parts in the order in which a token meets them. Shapes are
written T (tokens of the batch), R (rows that a head reads), B (sequences), H (hidden size), V (padded vocabulary).
Parameters are float32; activations and matrix products take the `dtype` of the call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertfast.config import BertConfig
from bertfast.ops.arguments import (
    Dropout,
    Ids,
    Lengths,
    Linear,
    LMHead,
    Norm,
    Predictions,
    SelfAttentionLayer,
    Tables,
)
from bertfast.ops.embedding import embedding_layer_norm
from bertfast.ops.feed_forward import feed_forward
from bertfast.ops.gather_rows import gather_rows
from bertfast.ops.linear import in_type, linear
from bertfast.ops.masked_lm_loss import masked_lm_loss, transformed
from bertfast.ops.self_attention import self_attention
from bertfast.sampling.batch import PackedBatch


class Bert(nn.Module):
    """BERT with its two pretraining heads.

    `forward` is the training pass and returns the losses. `hidden_states`, `pooled` and the two `*_logits` methods
    are for encoding and evaluation.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.trained_len = 0
        """The longest sequence in training, in tokens: later positions have random embeddings. 0: not trained yet."""
        self.base_model = ""
        """The name, on the Hugging Face Hub, of the model that training started from; empty if there is none."""
        with float32_on_the_cpu():
            self.embeddings = Embeddings(config)
            self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_hidden_layers))
            self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
            self.masked_lm_head = MaskedLMHead(config)
            self.next_sentence_head = nn.Linear(config.hidden_size, 2)
            self.reset_parameters()

    @property
    def max_len(self) -> int:
        """The longest text that the model is good for, in tokens."""
        return self.trained_len or self.config.max_position_embeddings

    def reset_parameters(self) -> None:
        """BERT's initialisation: weights from N(0, initializer_range), biases 0, LayerNorm the identity."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.embeddings.word.weight[self.config.pad_token_id].zero_()
            self.embeddings.word.weight[self.config.vocab_size :].zero_()

    def forward(
        self, batch: PackedBatch, mlm_weights: Tensor, seed: int, dtype: torch.dtype, kept: Kept | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The losses:

        - masked LM: sum_i mlm_weights_i CE_i
        - next sentence: the mean over its labels; 0 without labels
        - kept vectors: the mean over the examples of 1 - cos(vector, kept vector); 0 without `kept`

        Equal to computing every hidden state and reading the heads' rows. But without `kept` the last layer computes
        only those rows.
        """
        rows = head_rows(batch.cu_seqlens, batch.masked_positions) if kept is None else None
        hidden_states, word_weight = self.embeddings(batch, seed, dtype)
        hidden_states = self._run_layers(hidden_states, batch, seed, self.config.num_hidden_layers, rows)
        masked, first = (rows.masked, rows.first) if rows else (batch.masked_positions, batch.cu_seqlens[:-1].long())
        predictions = Predictions(masked, batch.labels, mlm_weights)
        mlm_loss = self.masked_lm_head.loss(hidden_states, predictions, word_weight)
        labels, nsp_loss, distance = batch.next_sentence_label, torch.zeros_like(mlm_loss), torch.zeros_like(mlm_loss)
        if labels.numel():
            logits = self.next_sentence_logits(self.pooled(gather_rows(hidden_states, first[: labels.numel()])))
            nsp_loss = F.cross_entropy(logits.float(), labels)
        if kept is not None:
            vectors = pooled_vectors(hidden_states, batch, kept.pooling)
            distance = (1 - F.cosine_similarity(vectors, kept.vectors)).mean()
        return mlm_loss, nsp_loss, distance

    def hidden_states(
        self,
        batch: PackedBatch,
        dtype: torch.dtype,
        seed: int = 0,
        layer: int | None = None,
        rows: HeadRows | None = None,
    ) -> Tensor:
        """(T, H): the output of a layer, from 1; 0: of the embeddings; None: of the last layer.

        With `rows`, the last of these layers computes only those: (R, H).
        """
        layers = self.config.num_hidden_layers if layer is None else layer
        return self._run_layers(self.embeddings(batch, seed, dtype)[0], batch, seed, layers, rows)

    def _run_layers(
        self, hidden_states: Tensor, batch: PackedBatch, seed: int, layers: int, rows: HeadRows | None
    ) -> Tensor:
        for index in range(layers):
            is_last = index + 1 == layers
            hidden_states = self.layers[index](hidden_states, batch, seed, rows if is_last else None)
        return hidden_states

    def pooled(self, first_rows: Tensor) -> Tensor:
        """tanh(W h + b) of the sequences' first rows, (B, H)."""
        return torch.tanh(linear(first_rows, Linear.of(self.pooler)))

    def next_sentence_logits(self, pooled: Tensor) -> Tensor:
        """(B, 2): for the true next sentence, and for another."""
        return linear(pooled, Linear.of(self.next_sentence_head))

    def masked_lm_logits(self, hidden_states: Tensor) -> Tensor:
        """(rows, vocab_size) for `hidden_states` (rows, H)."""
        return self.masked_lm_head.logits(hidden_states, self.embeddings.word.weight)


class Kept(NamedTuple):
    """What a batch's vectors should stay near."""

    vectors: Tensor
    """(examples, H) float32."""
    pooling: str
    """How a vector is made of an example's hidden states: mean, max or cls."""


def pooled_vectors(hidden_states: Tensor, batch: PackedBatch, pooling: str) -> Tensor:
    """(examples, H) float32: each example's vector, from hidden states (T, H)."""
    ends = batch.cu_seqlens[: batch.cu_masked.numel()].long()
    if pooling == "cls":
        return gather_rows(hidden_states, ends[:-1]).float()
    vectors: Tensor = torch.segment_reduce(hidden_states.float(), pooling, offsets=ends, unsafe=True)
    return vectors


@contextlib.contextmanager
def float32_on_the_cpu() -> Iterator[None]:
    """Within the context, new tensors are float32 and on the CPU, whatever torch's defaults are."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(before)


class HeadRows(NamedTuple):
    """The rows that the heads read: each sequence's first token, then its masked positions."""

    rows: Tensor
    """(R,) int64: indices into the T tokens."""
    cu_seqlens: Tensor
    """(B + 1,) int32: where each sequence's part of `rows` begins, and the end."""
    first: Tensor
    """(B,) int64: the first tokens' places in `rows`."""
    masked: Tensor
    """(M,) int64: the masked positions' places in `rows`."""


def head_rows(cu_seqlens: Tensor, masked_positions: Tensor) -> HeadRows:
    """Puts each sequence's first token before its masked positions, in tensor arithmetic of fixed shapes."""
    starts = cu_seqlens[:-1].long()
    ordinal = torch.arange(starts.numel(), device=starts.device)
    sequence = torch.searchsorted(starts, masked_positions, right=True)  # 1-based: one first token precedes each
    masked = torch.arange(masked_positions.numel(), device=starts.device) + sequence
    before = torch.searchsorted(masked_positions, cu_seqlens.long())
    first = before[:-1] + ordinal
    rows = torch.empty(starts.numel() + masked_positions.numel(), dtype=torch.int64, device=starts.device)
    rows = rows.index_copy(0, first, starts).index_copy(0, masked, masked_positions)
    ends = before + torch.arange(cu_seqlens.numel(), device=starts.device)
    return HeadRows(rows, ends.int(), first, masked)


class Embeddings(nn.Module):
    """dropout(LayerNorm(word + token type + position))."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.padded_vocab_size, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.p = config.hidden_dropout_prob

    def forward(self, batch: PackedBatch, seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(T, H), and the word embeddings for the masked-LM head, whose gradient flows back through this op."""
        ids = Ids(batch.input_ids, batch.token_type_ids, batch.position_ids, batch.cu_seqlens)
        tables = Tables(self.word.weight, self.token_type.weight, self.position.weight)
        dropout = Dropout(batch.row_keys, self.p if self.training else 0.0, seed, site=0)
        return embedding_layer_norm(ids, tables, Norm.of(self.norm), dropout, dtype)


class Layer(nn.Module):
    """Self-attention, then the feed-forward network; after each, dropout, residual and LayerNorm."""

    def __init__(self, config: BertConfig, index: int) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key_value = nn.Linear(config.hidden_size, 2 * config.hidden_size)
        self.attention_output = nn.Linear(config.hidden_size, config.hidden_size)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.intermediate = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)
        self.output_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.p_attention = config.attention_probs_dropout_prob
        self.p_hidden = config.hidden_dropout_prob
        self.site = 1 + 3 * index  # of the first of its three dropouts; site 0 is the embeddings'

    def forward(self, hidden_states: Tensor, batch: PackedBatch, seed: int, rows: HeadRows | None) -> Tensor:
        """(T, H) -> (T, H), or (R, H) with `rows`; keys and values span all tokens in both cases."""
        queries, cu_seqlens, row_keys = None, batch.cu_seqlens, batch.row_keys
        if rows is not None:
            queries, cu_seqlens, row_keys = rows.rows, rows.cu_seqlens, row_keys[rows.rows]
        lengths = Lengths(cu_seqlens, batch.cu_seqlens, batch.max_seqlen)
        p_attention, p_hidden = (self.p_attention, self.p_hidden) if self.training else (0.0, 0.0)
        layer = SelfAttentionLayer(
            Linear.of(self.query),
            Linear.of(self.key_value),
            Linear.of(self.attention_output),
            Norm.of(self.attention_norm),
            self.heads,
        )
        attention_dropout = Dropout(row_keys, p_attention, seed, self.site)
        dropout = Dropout(row_keys, p_hidden, seed, self.site + 1)
        attended = self_attention(hidden_states, queries, lengths, layer, attention_dropout, dropout)
        return feed_forward(
            attended,
            Linear.of(self.intermediate),
            Linear.of(self.output),
            Norm.of(self.output_norm),
            Dropout(row_keys, p_hidden, seed, self.site + 2),
        )


class MaskedLMHead(nn.Module):
    """LayerNorm(gelu(W h + b)), projected onto the word embeddings (tied), plus a bias for each word."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.padded_vocab_size))
        self.vocab_size = config.vocab_size
        self.fused = False
        """Whether the loss takes its fused form: see `masked_lm_loss`."""

    def start_from_frequencies(self, token_counts: Tensor) -> None:
        """Sets the bias to the log of each token's share of the corpus, with one occurrence added to each token.

        So the first loss is the entropy of the words' frequencies, which the run's first steps would otherwise be spent
        on reaching from log V. The corpus may have fewer tokens than the model.
        """
        counts = F.pad(token_counts.double(), (0, self.vocab_size - token_counts.numel())) + 1
        with torch.no_grad():
            self.bias[: self.vocab_size].copy_((counts / counts.sum()).log())

    def loss(self, hidden_states: Tensor, predictions: Predictions, word_weight: Tensor) -> Tensor:
        """sum_i weights_i CE(logits(hidden_states[positions_i]), labels_i); the logits never exist as a whole."""
        transform, norm, decoder = Linear.of(self.transform), Norm.of(self.norm), Linear(word_weight, self.bias)
        head = LMHead(transform, norm, decoder, self.vocab_size)
        return masked_lm_loss(hidden_states, predictions, head, self.fused)

    def logits(self, hidden_states: Tensor, word_weight: Tensor) -> Tensor:
        """(rows, H) -> (rows, vocab_size)."""
        rows = transformed(hidden_states, Linear.of(self.transform), Norm.of(self.norm))
        words = in_type(word_weight, rows.dtype)[: self.vocab_size]
        return linear(rows, Linear(words, self.bias[: self.vocab_size]))
