"""The embedding layer in one pass: three look-ups, LayerNorm and dropout.

The table of words is also what the masked-LM head projects on. So the layer hands it on, in the type of the products,
and the head's gradient of it comes back through here, where the tokens' gradients are added to it: one pass over a
matrix of the vocabulary's size, where a gradient of the layer's own, conversions and the sum of both took four.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from bertfast._native import native
from bertfast.ops import has_kernels
from bertfast.ops.dropout import PLACES_PER_SITE, dropout
from bertfast.ops.linear import in_type
from bertfast.ops.op import is_traced, op
from bertfast.ops.partial_sums import partial_sums


def embedding_layer_norm(
    input_ids: Tensor,
    token_type_ids: Tensor,
    position_ids: Tensor,
    word_weight: Tensor,
    type_weight: Tensor,
    position_weight: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """`dropout(LayerNorm(word[input_ids] + type[token_type_ids] + position[position_ids]))`, in float32; and the words.

    Args:
        input_ids, token_type_ids, position_ids: (tokens,) int64.
        word_weight, type_weight, position_weight: (entries, hidden) float32. Their gradients are dense.
        weight, bias: (hidden,) float32.
        eps: added to the variance.
        row_keys, p, seed, site: see `bertfast.ops.dropout.dropout`.
        dtype: float32 or bfloat16.

    Returns: (tokens, hidden) in `dtype`, and `word_weight` for whatever else is computed with it; in `dtype` as well if
    a gradient may be asked for.
    """
    tables = (word_weight, type_weight, position_weight, weight, bias)
    arguments = (input_ids, token_type_ids, position_ids, *tables, eps, row_keys, p, seed, site, dtype)
    if not has_kernels(word_weight.device, "embedding_layer_norm"):
        return embedding_layer_norm_twin(*arguments)
    if is_traced(word_weight):
        return _embedding_layer_norm(*arguments)[0], word_weight.to(dtype)
    if not torch.is_grad_enabled():
        return _embedding_layer_norm(*arguments)[0], word_weight
    return cast(tuple[Tensor, Tensor], _EmbeddingLayerNorm.apply(*arguments))  # type: ignore[no-untyped-call]


@op("embedding_layer_norm")
def _embedding_layer_norm(
    input_ids: Tensor,
    token_type_ids: Tensor,
    position_ids: Tensor,
    word_weight: Tensor,
    type_weight: Tensor,
    position_weight: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """The result, and (tokens, 2) means and reciprocal deviations, with which the backward pass normalises again."""
    ids = (input_ids.contiguous(), token_type_ids.contiguous(), position_ids.contiguous())
    tables = (word_weight.contiguous(), type_weight.contiguous(), position_weight.contiguous())
    out = word_weight.new_empty(input_ids.shape[0], word_weight.shape[1], dtype=dtype)
    moments = weight.new_empty(input_ids.shape[0], 2)
    parameters = (weight.contiguous(), bias.contiguous(), eps)
    rule = (row_keys.contiguous(), p, seed, PLACES_PER_SITE * site)
    with torch.cuda.device_of(out):
        native.embedding_layer_norm(*ids, *tables, *parameters, *rule, out, moments)
    return out, moments


@_embedding_layer_norm.register_fake
def _(input_ids: Tensor, _1: Tensor, _2: Tensor, word_weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    tokens = input_ids.shape[0]
    return word_weight.new_empty(tokens, word_weight.shape[1], dtype=rest[-1]), word_weight.new_empty(tokens, 2)


@op("embedding_layer_norm_backward")
def _embedding_layer_norm_backward(
    grad: Tensor,
    input_ids: Tensor,
    token_type_ids: Tensor,
    position_ids: Tensor,
    word_weight: Tensor,
    type_weight: Tensor,
    position_weight: Tensor,
    weight: Tensor,
    moments: Tensor,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
    grad_word: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`grad_word`: what the tokens' part of the first gradient is added to, of any type; None for zeros."""
    ids = (input_ids.contiguous(), token_type_ids.contiguous(), position_ids.contiguous())
    tables = (word_weight.contiguous(), type_weight.contiguous(), position_weight.contiguous())
    weight = weight.contiguous()
    rule = (row_keys.contiguous(), p, seed, PLACES_PER_SITE * site)
    grad_sum = weight.new_empty(grad.shape)
    word = torch.zeros_like(tables[0]) if grad_word is None else grad_word.to(torch.float32, copy=True)
    grads = (
        word,
        torch.empty_like(tables[1]),
        torch.zeros_like(tables[2]),
        torch.empty_like(weight),
        torch.empty_like(weight),
    )
    by_word, by_position = (_tokens_by_entry(ids[i], tables[i].shape[0]) for i in (0, 2))
    working = (*by_word, *by_position, partial_sums(grad_sum, 2 + tables[1].shape[0]))
    with torch.cuda.device_of(grad):
        native.embedding_layer_norm_backward(
            grad.contiguous(), *ids, *tables, weight, moments, *rule, grad_sum, *grads, *working
        )
    return grads


def _tokens_by_entry(ids: Tensor, entries: int) -> tuple[Tensor | None, Tensor | None]:
    """On a GPU: the tokens in a stable order of their ids, and (entries + 1,) where each entry's begin in it.

    Sorting takes time by the bytes of what is sorted.
    """
    if not ids.is_cuda:
        return None, None
    dtype = torch.int16 if entries <= torch.iinfo(torch.int16).max else torch.int32
    sorted_ids, order = ids.to(dtype).sort(stable=True)
    return order, torch.searchsorted(sorted_ids, torch.arange(entries + 1, dtype=dtype, device=ids.device))


@_embedding_layer_norm_backward.register_fake
def _(
    grad: Tensor,
    input_ids: Tensor,
    token_type_ids: Tensor,
    position_ids: Tensor,
    word_weight: Tensor,
    type_weight: Tensor,
    position_weight: Tensor,
    weight: Tensor,
    *rest: Any,
) -> tuple[Tensor, ...]:
    return tuple(each.new_empty(each.shape) for each in (word_weight, type_weight, position_weight, weight, weight))


def _save(ctx: Any, inputs: tuple[Any, ...], moments: Tensor) -> None:
    *ids_tables_weight, _, _, row_keys, p, seed, site, _ = inputs
    ctx.rule = (p, seed, site)
    ctx.save_for_backward(*ids_tables_weight, moments, row_keys)


def _gradients(ctx: Any, grad: Tensor, grad_word: Tensor | None) -> tuple[Tensor | None, ...]:
    grads = _embedding_layer_norm_backward(grad.contiguous(), *ctx.saved_tensors, *ctx.rule, grad_word)
    return None, None, None, *grads, None, None, None, None, None, None


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, moments = output
    ctx.mark_non_differentiable(moments)
    _save(ctx, inputs, moments)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return _gradients(ctx, grad, None)


_embedding_layer_norm.register_autograd(_backward, setup_context=_setup_context)


class _EmbeddingLayerNorm(torch.autograd.Function):
    """The op, and the words, whose gradient is there when the op's is computed."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        out, moments = _embedding_layer_norm(*arguments)
        _save(ctx, arguments, moments)
        return out, in_type(arguments[3], arguments[-1]).detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_word: Tensor) -> tuple[Tensor | None, ...]:
        return _gradients(ctx, grad, grad_word)


def embedding_layer_norm_twin(
    input_ids: Tensor,
    token_type_ids: Tensor,
    position_ids: Tensor,
    word_weight: Tensor,
    type_weight: Tensor,
    position_weight: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    row_keys: Tensor,
    p: float,
    seed: int,
    site: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """`embedding_layer_norm` in plain torch."""
    added = (
        F.embedding(input_ids, word_weight)
        + F.embedding(token_type_ids, type_weight)
        + F.embedding(position_ids, position_weight)
    )
    normal = F.layer_norm(added, added.shape[1:], weight, bias, eps)
    return dropout(normal, row_keys, p, seed, site).to(dtype), word_weight.to(dtype)
