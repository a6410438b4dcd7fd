"""BERT, as published and as `transformers.BertForPreTraining` defines it, over packed sequences.

Read it from the top: `Bert` holds the whole, then come its parts in the order in which a token meets them. Shapes are
written T (tokens of the batch), R (rows that a head reads), B (sequences), H (hidden size), V (padded vocabulary).
Parameters are float32; activations and matrix products take the `dtype` of the call.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertfast.config import BertConfig
from bertfast.ops.embedding import embedding_layer_norm
from bertfast.ops.feed_forward import feed_forward
from bertfast.ops.linear import linear
from bertfast.ops.masked_lm_loss import masked_lm_loss
from bertfast.ops.self_attention import self_attention
from bertfast.sampling.batch import Predictions, Sequences


class Bert(nn.Module):
    """BERT with its two pretraining heads.

    `forward` is the training pass and returns the two losses; `hidden_states`, `pooled` and the two `*_logits` methods
    are the parts that encoding and evaluation use.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_hidden_layers))
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.masked_lm_head = MaskedLMHead(config)
        self.next_sentence_head = nn.Linear(config.hidden_size, 2)
        self.reset_parameters()

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
        self,
        sequences: Sequences,
        predictions: Predictions,
        mlm_weights: Tensor,
        seed: int,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        """The masked-LM loss, sum_i mlm_weights_i CE_i, and the next-sentence loss, the mean over its labels.

        Equal to computing every hidden state and reading the heads' rows, but the last layer computes only those rows.
        """
        read = read_rows(sequences.cu_seqlens, predictions.masked_positions)
        hidden_states, word_weight = self.embeddings(sequences, seed, dtype)
        hidden_states = self.encoded(hidden_states, sequences, read, seed)
        mlm_loss = self.masked_lm_head.loss(hidden_states, read.masked, predictions.labels, mlm_weights, word_weight)
        if not predictions.next_sentence_label.numel():
            return mlm_loss, torch.zeros_like(mlm_loss)
        labels = predictions.next_sentence_label
        logits = self.next_sentence_logits(self.pooled(hidden_states[read.first[: labels.numel()]]))
        return mlm_loss, F.cross_entropy(logits.float(), labels)

    def read_states(self, sequences: Sequences, read: ReadRows, seed: int, dtype: torch.dtype) -> Tensor:
        """The last layer's hidden states of the rows that the heads read, (R, H)."""
        return self.encoded(self.embeddings(sequences, seed, dtype)[0], sequences, read, seed)

    def encoded(self, hidden_states: Tensor, sequences: Sequences, read: ReadRows, seed: int) -> Tensor:
        """The same from the embeddings' output."""
        for layer in self.layers[:-1]:
            hidden_states = layer(hidden_states, sequences, None, seed)
        read_states: Tensor = self.layers[-1](hidden_states, sequences, read, seed)
        return read_states

    def hidden_states(
        self,
        sequences: Sequences,
        dtype: torch.dtype,
        seed: int = 0,
        upto: int | None = None,
        read: ReadRows | None = None,
    ) -> list[Tensor]:
        """The embeddings' output and each layer's, (T, H) each; `upto` is the last one, of which the rows of `read`."""
        layers = self.layers[:upto]
        states = [self.embeddings(sequences, seed, dtype)[0]]
        for layer in layers:
            states.append(layer(states[-1], sequences, read if layer is layers[-1] else None, seed))
        return states

    def pooled(self, first_rows: Tensor) -> Tensor:
        """tanh(W h + b) of the sequences' first rows, (B, H)."""
        return torch.tanh(linear(first_rows, self.pooler.weight, self.pooler.bias))

    def next_sentence_logits(self, pooled: Tensor) -> Tensor:
        """(B, 2): for the true next sentence, and for another."""
        return linear(pooled, self.next_sentence_head.weight, self.next_sentence_head.bias)

    def masked_lm_logits(self, hidden_states: Tensor) -> Tensor:
        """(rows, vocab_size) for `hidden_states` (rows, H)."""
        return self.masked_lm_head.logits(hidden_states, self.embeddings.word.weight)


class ReadRows(NamedTuple):
    """The rows that the heads read, sequence by sequence: its first token, then its masked positions."""

    rows: Tensor  # (R,) int64: indices into the T tokens
    cu_seqlens: Tensor  # (B + 1,) int32: each sequence's share of `rows`
    first: Tensor  # (B,) int64: where in `rows` the first tokens stand
    masked: Tensor  # (M,) int64: where in `rows` the masked positions stand


def read_rows(cu_seqlens: Tensor, masked_positions: Tensor) -> ReadRows:
    """Interleaves each sequence's first token with its masked positions, in tensor arithmetic of fixed shapes."""
    starts = cu_seqlens[:-1].long()
    ordinal = torch.arange(starts.numel(), device=starts.device)
    sequence = torch.searchsorted(starts, masked_positions, right=True)  # 1-based: one first token precedes each
    masked = torch.arange(masked_positions.numel(), device=starts.device) + sequence
    before = torch.searchsorted(masked_positions, cu_seqlens.long())
    first = before[:-1] + ordinal
    rows = torch.empty(starts.numel() + masked_positions.numel(), dtype=torch.int64, device=starts.device)
    rows = rows.index_copy(0, first, starts).index_copy(0, masked, masked_positions)
    ends = before + torch.arange(cu_seqlens.numel(), device=starts.device)
    return ReadRows(rows, ends.int(), first, masked)


class Embeddings(nn.Module):
    """dropout(LayerNorm(word + token type + position))."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.padded_vocab_size, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.p = config.hidden_dropout_prob

    def forward(self, sequences: Sequences, seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(T, H), and the words for the masked-LM head, whose gradient goes the way back through here."""
        return embedding_layer_norm(
            sequences.input_ids,
            sequences.token_type_ids,
            sequences.position_ids,
            self.word.weight,
            self.token_type.weight,
            self.position.weight,
            self.norm.weight,
            self.norm.bias,
            self.norm.eps,
            sequences.row_keys,
            self.p if self.training else 0.0,
            seed,
            0,
            dtype,
        )


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
        self.site = 1 + 3 * index  # its three dropouts; 0 is the embeddings'

    def forward(self, hidden_states: Tensor, sequences: Sequences, read: ReadRows | None, seed: int) -> Tensor:
        """(T, H) -> (T, H), or (R, H) where only the rows of `read` are wanted; keys and values span all tokens."""
        rows, cu_seqlens_q, row_keys = None, sequences.cu_seqlens, sequences.row_keys
        if read is not None:
            rows, cu_seqlens_q, row_keys = read.rows, read.cu_seqlens, row_keys[read.rows]
        p_attention, p_hidden = (self.p_attention, self.p_hidden) if self.training else (0.0, 0.0)
        attended = self_attention(
            hidden_states,
            rows,
            cu_seqlens_q,
            sequences.cu_seqlens,
            sequences.max_seqlen,
            self.query.weight,
            self.query.bias,
            self.key_value.weight,
            self.key_value.bias,
            self.attention_output.weight,
            self.attention_output.bias,
            self.attention_norm.weight,
            self.attention_norm.bias,
            self.attention_norm.eps,
            self.heads,
            row_keys,
            p_attention,
            p_hidden,
            seed,
            self.site,
        )
        return feed_forward(
            attended,
            self.intermediate.weight,
            self.intermediate.bias,
            self.output.weight,
            self.output.bias,
            self.output_norm.weight,
            self.output_norm.bias,
            self.output_norm.eps,
            row_keys,
            p_hidden,
            seed,
            self.site + 2,
        )


class MaskedLMHead(nn.Module):
    """LayerNorm(gelu(W h + b)), projected on the word embeddings (tied), plus a bias for each word."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.padded_vocab_size))
        self.vocab_size = config.vocab_size
        self.fused = False
        """Which form the loss takes: see `masked_lm_loss`."""

    def start_from_frequencies(self, token_counts: Tensor) -> None:
        """Sets the bias to the log of each token's share of the corpus (with one occurrence added to each);
        the corpus may know fewer tokens than the model.

        So training starts at the entropy of the words' frequencies instead of spending its first steps on getting there
        from log V.
        """
        counts = F.pad(token_counts.double(), (0, self.vocab_size - token_counts.numel())) + 1
        with torch.no_grad():
            self.bias[: self.vocab_size].copy_((counts / counts.sum()).log())

    def loss(
        self, hidden_states: Tensor, positions: Tensor, labels: Tensor, weights: Tensor, word_weight: Tensor
    ) -> Tensor:
        """sum_i weights_i CE(logits(hidden_states[positions_i]), labels_i); the logits never exist as a whole."""
        return masked_lm_loss(
            hidden_states,
            positions,
            labels,
            weights,
            self.transform.weight,
            self.transform.bias,
            self.norm.weight,
            self.norm.bias,
            word_weight,
            self.bias,
            self.vocab_size,
            self.norm.eps,
            self.fused,
        )

    def logits(self, hidden_states: Tensor, word_weight: Tensor) -> Tensor:
        transformed = F.gelu(linear(hidden_states, self.transform.weight, self.transform.bias))
        normalized = self.norm(transformed.float()).to(hidden_states.dtype)
        return linear(normalized, word_weight[: self.vocab_size], self.bias[: self.vocab_size])
