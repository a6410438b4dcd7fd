"""The mathematics of the model in plain torch: a twin for every native op, from the model's top to its random draws.

These run on devices without kernels, and are what the kernels are tested against. Their docstrings say only what
differs; the op of the same name says the rest. Parameters may be float64.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bertfast.ops.arguments import (
    AdamTensors,
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


def embedding_layer_norm(
    ids: Ids, tables: Tables, norm: Norm, dropout: Dropout, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    added = (
        F.embedding(ids.word, tables.word)
        + F.embedding(ids.token_type, tables.token_type)
        + F.embedding(ids.position, tables.position)
    )
    return apply_dropout(layer_norm(added, norm), dropout).to(dtype), tables.word.to(dtype)


def self_attention(
    x: Tensor,
    rows: Tensor | None,
    lengths: Lengths,
    layer: SelfAttentionLayer,
    attention_dropout: Dropout,
    dropout: Dropout,
) -> Tensor:
    query, key_value, output, norm, heads = layer
    residual = x if rows is None else x[rows]
    q = linear(residual, query).unflatten(1, (heads, -1))
    kv = linear(x, key_value).unflatten(1, (2, heads, -1))
    context = attention(q, kv, lengths, attention_dropout)
    return dropout_add_layer_norm(linear(context.flatten(1), output), residual, norm, dropout)


def attention(query: Tensor, key_value: Tensor, lengths: Lengths, dropout: Dropout) -> Tensor:
    """On padded sequences. Products are computed in the inputs' dtype, the softmax in float32."""
    cu_seqlens_q, cu_seqlens_k, longest = lengths
    _, heads, head_dim = query.shape
    batch = cu_seqlens_q.shape[0] - 1
    query_slot = _padded_slots(cu_seqlens_q, query.shape[0], longest)
    key_slot = _padded_slots(cu_seqlens_k, key_value.shape[0], longest)

    def pad(packed: Tensor, slot: Tensor) -> Tensor:
        padded = packed.new_zeros((batch * longest, *packed.shape[1:])).index_copy(0, slot, packed)
        return padded.view(batch, longest, *packed.shape[1:])

    q = pad(query, query_slot).transpose(1, 2)
    k, v = pad(key_value, key_slot).permute(2, 0, 3, 1, 4).unbind()
    is_padding = torch.arange(longest, device=query.device) >= cu_seqlens_k.diff()[:, None]
    scores = _widened(q @ k.transpose(2, 3)) / head_dim**0.5
    # The lowest finite number: a padded query without keys gets no NaN, which would reach gradients.
    scores = scores.masked_fill(is_padding[:, None, None, :], torch.finfo(scores.dtype).min)
    probabilities = scores.softmax(dim=3)
    if dropout.p > 0:
        places = range(dropout.place(), dropout.place() + heads)
        kept = torch.stack([dropout_mask(dropout, longest, place) for place in places], dim=1)
        probabilities = pad(kept, query_slot).transpose(1, 2) * (probabilities * (1.0 / (1.0 - dropout.p)))
    out: Tensor = probabilities.to(query.dtype) @ v
    return out.transpose(1, 2).reshape(batch * longest, heads, head_dim).index_select(0, query_slot)


def _padded_slots(cu_seqlens: Tensor, tokens: int, longest: int) -> Tensor:
    """(tokens,) int64: each packed token's place in the flattened (batch, longest)."""
    token = torch.arange(tokens, dtype=cu_seqlens.dtype, device=cu_seqlens.device)
    sequence = torch.searchsorted(cu_seqlens, token, right=True) - 1
    return sequence * longest + token - cu_seqlens[sequence]


def feed_forward(x: Tensor, intermediate: Linear, output: Linear, norm: Norm, dropout: Dropout) -> Tensor:
    activated = bias_gelu(F.linear(x, intermediate.weight.to(x.dtype)), intermediate.bias)
    return dropout_add_layer_norm(linear(activated, output), x, norm, dropout)


def masked_lm_loss(hidden_states: Tensor, predictions: Predictions, head: LMHead) -> Tensor:
    """All logits at once, everything in the dtype of `hidden_states`."""
    transform, norm, decoder, vocab_size = head
    positions, labels, weights = predictions
    rows = hidden_states if positions is None else hidden_states[positions]
    rows = F.gelu(linear(rows, transform))
    rows = layer_norm(rows, Norm(norm.weight.to(rows.dtype), norm.bias.to(rows.dtype), norm.eps))
    logits = linear(rows, Linear(decoder.weight[:vocab_size], decoder.bias[:vocab_size]))
    return (weights * F.cross_entropy(logits, labels, reduction="none")).sum()


def dropout_add_layer_norm(x: Tensor, residual: Tensor, norm: Norm, dropout: Dropout) -> Tensor:
    return layer_norm(apply_dropout(_widened(x), dropout) + residual, norm).to(x.dtype)


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(_widened(x) + bias).to(x.dtype)


def linear(x: Tensor, layer: Linear) -> Tensor:
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


def layer_norm(x: Tensor, norm: Norm) -> Tensor:
    return F.layer_norm(x, x.shape[1:], *norm)


def _widened(x: Tensor) -> Tensor:
    """`x` in the dtype of its arithmetic: float32 for bfloat16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def apply_dropout(x: Tensor, dropout: Dropout) -> Tensor:
    """`x[r, c] / (1 - p)` where kept, else 0."""
    if dropout.p == 0:
        return x
    kept = dropout_mask(dropout, x.shape[1], dropout.place())
    return torch.where(kept, (_widened(x) * (1.0 / (1.0 - dropout.p))).to(x.dtype), 0.0)


_STREAM_DROPOUT = 3
_LOW = 0xFFFFFFFF


def dropout_mask(dropout: Dropout, columns: int, place: int) -> Tensor:
    """(rows, columns) bool: which elements are kept, each with probability 1 - p.

    Element (r, c) is kept iff the lower (c even) or upper half of word `c % 8 // 2` of the draw, of seven rounds, with
    index `row_keys[r]`, slot `c // 8` and this `place` is below `max(1, round((1 - p) 2^16))`. The place is
    `256 * site`, in attention with the head's number added. The backward pass draws again; no mask is stored.
    """
    row_keys, p, seed, _ = dropout
    slots = torch.arange((columns + 7) // 8, device=row_keys.device).expand(row_keys.shape[0], -1)
    index = row_keys[:, None].expand_as(slots)
    counter = (index & _LOW, index >> 32 & _LOW, slots, torch.full_like(slots, _STREAM_DROPOUT | place << 8))
    words = _philox4x32_7(counter, seed & _LOW, seed >> 32 & _LOW)
    halves = torch.stack([half for word in words for half in (word & 0xFFFF, word >> 16)], dim=2).flatten(1)
    return halves[:, :columns] < max(1, math.floor((1.0 - p) * 2.0**16 + 0.5))


_Words = tuple[Tensor, Tensor, Tensor, Tensor]


def _philox4x32_7(counter: _Words, k0: int, k1: int) -> _Words:
    """Philox4x32-7 on int64 tensors that hold 32-bit words."""
    c0, c1, c2, c3 = counter
    for _ in range(7):
        high0, low0 = _multiply(c0, 0xD2511F53)
        high1, low1 = _multiply(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return c0, c1, c2, c3


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """The high and low words of a 64-bit product.

    In two halves: a product beyond 2^63 is undefined in the C++ that torch.compile writes, and comes out wrong.
    """
    low, high = a * (b & 0xFFFF), a * (b >> 16)
    return high + (low >> 16) >> 16, ((high & 0xFFFF) << 16) + low & _LOW


BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


@torch.no_grad()
def adam(tensors: AdamTensors, count: Tensor, rate: Tensor, factor: Tensor, refused: Tensor) -> None:
    """Reads nothing on the host, so that a step can be captured."""
    keeps = refused == 0
    step = rate.double() / (1 - BETA1 ** count.double())
    correction = (1 - BETA2 ** count.double()).sqrt()
    for number, (p, gradient, m, v) in enumerate(zip(*tensors[:4], strict=True)):
        g = gradient * factor
        new_m = m.lerp(g, 1 - BETA1)
        new_v = (v * BETA2).addcmul(g, g, value=1 - BETA2)
        new_p = p - step.to(p.dtype) * new_m / (new_v.sqrt() / correction.to(p.dtype) + EPS)
        for old, new in ((m, new_m), (v, new_v), (p, new_p)):
            old.copy_(torch.where(keeps, new, old))
        if tensors.copies is not None:
            tensors.copies[number].copy_(torch.where(keeps, p.to(torch.bfloat16), tensors.copies[number]))
