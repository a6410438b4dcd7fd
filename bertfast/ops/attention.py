"""Attention over packed sequences, with dropout of the probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from bertfast.ops.dropout import PLACES_PER_SITE, dropout_mask_twin, widened


def attention(
    query: Tensor,
    key_value: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen: int,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
) -> Tensor:
    """`dropout(softmax(q k^T / sqrt(head_dim))) v`, for each sequence and head alone.

    Query i's probability of its sequence's key j falls by the draw with index `row_keys[i]`, slot `j // 4`,
    word `j % 4` and place `256 * site + head` (see `bertfast.ops.dropout`).

    Args:
        query: (query tokens, heads, head_dim), float32 or bfloat16, packed.
        key_value: (tokens, 2, heads, head_dim), packed: `[:, 0]` keys, `[:, 1]` values.
        cu_seqlens_q: (batch + 1,) int32; sequence b's queries are rows `cu_seqlens_q[b]` up to the next.
        cu_seqlens_k: (batch + 1,) int32, the same for keys. A sequence without keys has no queries.
        max_seqlen: no sequence has more queries, or more keys.
        row_keys: (query tokens,) int64.
        p: share of the probabilities that falls, in [0, 1).

    Returns: like `query`.
    """
    return attention_twin(query, key_value, cu_seqlens_q, cu_seqlens_k, max_seqlen, row_keys, p, seed, site)


def attention_twin(
    query: Tensor,
    key_value: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen: int,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
) -> Tensor:
    """`attention` in plain torch: padded; products in the inputs' type, softmax in float32."""
    _, heads, head_dim = query.shape
    batch = cu_seqlens_q.shape[0] - 1
    query_slot = _padded_slots(cu_seqlens_q, query.shape[0], max_seqlen)
    key_slot = _padded_slots(cu_seqlens_k, key_value.shape[0], max_seqlen)

    def pad(packed: Tensor, slot: Tensor) -> Tensor:
        padded = packed.new_zeros((batch * max_seqlen, *packed.shape[1:])).index_copy(0, slot, packed)
        return padded.view(batch, max_seqlen, *packed.shape[1:])

    q = pad(query, query_slot).transpose(1, 2)
    k, v = pad(key_value, key_slot).permute(2, 0, 3, 1, 4).unbind()
    lengths = cu_seqlens_k[1:] - cu_seqlens_k[:-1]
    is_padding = torch.arange(max_seqlen, device=query.device) >= lengths[:, None]
    scores = widened(q @ k.transpose(2, 3)) / head_dim**0.5
    # The lowest finite number: a padded query without keys gets no NaN, which would reach gradients.
    scores = scores.masked_fill(is_padding[:, None, None, :], torch.finfo(scores.dtype).min)
    probabilities = scores.softmax(dim=3)
    if p > 0:
        places = range(PLACES_PER_SITE * site, PLACES_PER_SITE * site + heads)
        kept = torch.stack([dropout_mask_twin(row_keys, max_seqlen, p, seed, place) for place in places], dim=1)
        probabilities = pad(kept, query_slot).transpose(1, 2) * (probabilities * (1.0 / (1.0 - p)))
    out: Tensor = probabilities.to(query.dtype) @ v
    return out.transpose(1, 2).reshape(batch * max_seqlen, heads, head_dim).index_select(0, query_slot)


def _padded_slots(cu_seqlens: Tensor, tokens: int, max_seqlen: int) -> Tensor:
    """(tokens,) int64: where each packed token stands in the flattened (batch, max_seqlen)."""
    token = torch.arange(tokens, dtype=cu_seqlens.dtype, device=cu_seqlens.device)
    sequence = torch.searchsorted(cu_seqlens, token, right=True) - 1
    return sequence * max_seqlen + token - cu_seqlens[sequence]
