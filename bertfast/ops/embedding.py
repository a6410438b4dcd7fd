"""The embedding layer in one pass: three look-ups, LayerNorm and dropout.

The masked-LM head projects onto the same table of words. So the op also returns that table, and the head's gradient of
it flows back through the op, which adds the tokens' gradients: one pass over a matrix of the vocabulary's size. Two
gradients, their conversion and their sum would take four.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from bertfast._native import native
from bertfast.ops import has_kernels, reference
from bertfast.ops.arguments import Dropout, Ids, Norm, Tables
from bertfast.ops.linear import Copy, in_type
from bertfast.ops.op import is_traced, keep, kept, op
from bertfast.ops.partial_sums import partial_sums


def embedding_layer_norm(
    ids: Ids, tables: Tables, norm: Norm, dropout: Dropout, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`dropout(LayerNorm(word[ids.word] + token_type[ids.token_type] + position[ids.position]))`, and the word table.

    Args:
        ids: of the tokens. One outside its table raises IndexError on a CPU, and makes the row NaN on a GPU.
        tables: their gradients are dense.
        norm: of `hidden`. Everything is computed in float32.
        dropout: of the result; a key for each token.
        dtype: float32 or bfloat16.

    Returns: (tokens, hidden) in `dtype`, and `tables.word` for other uses, on a GPU also in `dtype` if
        gradients are enabled: the head's products give the gradient in float32 on a CPU, in `dtype` there.
    """
    if not has_kernels(tables.word.device, "embedding_layer_norm"):
        return reference.embedding_layer_norm(ids, tables, norm, dropout, dtype)
    if is_traced(tables.word):
        return _embedding_layer_norm(ids, tables, norm, dropout, dtype)[0], tables.word.to(dtype)
    if not torch.is_grad_enabled():
        return _embedding_layer_norm(ids, tables, norm, dropout, dtype)[0], tables.word
    arguments = (ids, tables, norm, dropout, dtype)
    return cast(tuple[Tensor, Tensor], _WithWords.apply(arguments, *tables, norm.weight, norm.bias))  # type: ignore[no-untyped-call]


@op("embedding_layer_norm")
def _embedding_layer_norm(
    ids: Ids, tables: Tables, norm: Norm, dropout: Dropout, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The result, and (tokens, 2) means and reciprocal deviations, from which the backward pass normalises again."""
    ids, tables = Ids._make(map(Tensor.contiguous, ids)), Tables._make(map(Tensor.contiguous, tables))
    out = tables.word.new_empty(ids.word.shape[0], tables.word.shape[1], dtype=dtype)
    moments = norm.weight.new_empty(ids.word.shape[0], 2)
    parameters = (norm.weight.contiguous(), norm.bias.contiguous(), norm.eps)
    with torch.cuda.device_of(out):
        native.embedding_layer_norm(*ids[:3], *tables, *parameters, *dropout.for_kernel(), out, moments)
    return out, moments


@_embedding_layer_norm.register_fake
def _(ids: Ids, tables: Tables, norm: Norm, dropout: Dropout, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    tokens, hidden = ids.word.shape[0], tables.word.shape[1]
    return tables.word.new_empty(tokens, hidden, dtype=dtype), norm.weight.new_empty(tokens, 2)


@op("embedding_layer_norm_backward")
def _embedding_layer_norm_backward(
    grad: Tensor,
    ids: Ids,
    tables: Tables,
    norm_weight: Tensor,
    moments: Tensor,
    dropout: Dropout,
    grad_words: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the tables and of the LayerNorm's weight and bias.

    `grad_words`: a gradient of the word table, of any dtype, to add the tokens' gradients to; None: zeros.
    """
    ids, tables = Ids._make(map(Tensor.contiguous, ids)), Tables._make(map(Tensor.contiguous, tables))
    weight = norm_weight.contiguous()
    grad_sum = weight.new_empty(grad.shape)
    grads = (
        torch.zeros_like(tables.word) if grad_words is None else grad_words.to(torch.float32, copy=True),
        torch.empty_like(tables.token_type),
        torch.zeros_like(tables.position),
        torch.empty_like(weight),
        torch.empty_like(weight),
    )
    working = (
        *_tokens_by_entry(ids.word, tables.word.shape[0]),
        ids.cu_seqlens if ids.word.is_cuda else None,  # to find a position's tokens without sorting
        partial_sums(grad_sum, 2 + tables.token_type.shape[0]),
    )
    with torch.cuda.device_of(grad):
        native.embedding_layer_norm_backward(
            grad.contiguous(), *ids[:3], *tables, weight, moments, *dropout.for_kernel(), grad_sum, *grads, *working
        )
    return grads


def _tokens_by_entry(ids: Tensor, entries: int) -> tuple[Tensor | None, Tensor | None]:
    """On a GPU: the tokens in a stable order of their ids, and (entries + 1,) where each entry's tokens begin in it.

    The ids are narrowed first: sorting takes time in proportion to their bytes.
    """
    if not ids.is_cuda:
        return None, None
    dtype = torch.int16 if entries <= torch.iinfo(torch.int16).max else torch.int32
    sorted_ids, order = ids.to(dtype).sort(stable=True)
    return order, torch.searchsorted(sorted_ids, torch.arange(entries + 1, dtype=dtype, device=ids.device))


_embedding_layer_norm_backward.returns_like(lambda grad, ids, tables, weight, *_: (*tables, weight, weight))


def _save(arguments: Sequence[Any], result: tuple[Tensor, Tensor]) -> Sequence[Any]:
    ids, tables, norm, dropout, _ = arguments
    _, moments = result
    return ids, tables, norm.weight, moments, dropout


def _backward(saved: Sequence[Any], grad: Tensor) -> Sequence[Any]:
    *grad_tables, grad_weight, grad_bias = _embedding_layer_norm_backward(grad, *saved, None)
    return None, grad_tables, (grad_weight, grad_bias, None), None, None


_embedding_layer_norm.register_autograd(_save, _backward)


class _WithWords(torch.autograd.Function):
    """The op with the word table as a second result, so that the backward pass gets both gradients at once."""

    @staticmethod
    def forward(ctx: Any, arguments: Sequence[Any], *_: Tensor) -> tuple[Tensor, Tensor]:
        _ids, tables, _norm, _dropout, dtype = arguments
        result = _embedding_layer_norm.function(*arguments)
        keep(ctx, _save(arguments, result))
        word = tables.word
        return result[0], in_type(word, dtype).detach() if word.is_cuda else Copy.share(word, word.detach())

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_words: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_embedding_layer_norm_backward(grad.contiguous(), *kept(ctx), grad_words)
