"""The masked-LM loss, whose logits exist for a chunk of the masked rows at a time, or, fused, never."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bertfast._native import native
from bertfast.ops import has_kernels, reference
from bertfast.ops.arguments import Linear, LMHead, Norm, Predictions
from bertfast.ops.fused_mlm_loss import fused_mlm_loss
from bertfast.ops.gather_rows import gather_rows
from bertfast.ops.linear import in_type, linear
from bertfast.ops.op import is_traced, op
from bertfast.ops.product import matrix_product, multiplied_by_kernel, product_over_rows


def masked_lm_loss(hidden_states: Tensor, predictions: Predictions, head: LMHead, fused: bool = False) -> Tensor:
    """`sum_i weights_i CE(decoder(t_i), labels_i)`, `t_i = LayerNorm(gelu(transform(hidden_states[positions_i])))`.

    CE is cross entropy over the first `head.vocab_size` words, gelu the exact one. Products are computed in the dtype
    of `hidden_states`, everything between them in float32. Differentiable, once, in everything but the predictions.

    Args:
        hidden_states: (tokens, hidden) float32 or bfloat16.
        predictions: divide the weights by the number of predictions for a mean. A row of weight 0 adds nothing to the
            loss and to any gradient. A label outside [0, vocab_size) raises ValueError on a CPU, and makes the loss NaN
            on a GPU.
        head: the parameters of `t` and of the decoder.
        fused: take the loss from `t` by `fused_mlm_loss`, which supports bfloat16 on a CUDA device and some hidden
            sizes. `t` is then computed for all hidden states, and the kernel reads the predicted ones. False: the loss
            is computed in chunks, from the predicted rows alone.

    Returns:
        The loss, a float32 scalar.
    """
    transform, norm, decoder, vocab_size = head
    if fused or not has_kernels(hidden_states.device, "masked_lm_loss"):
        decoder = decoder._replace(weight=in_type(decoder.weight, hidden_states.dtype))
        if fused:
            return fused_mlm_loss(transformed(hidden_states, transform, norm), predictions, decoder, vocab_size)
        return reference.masked_lm_loss(hidden_states, predictions, head._replace(decoder=decoder))
    positions = predictions.positions
    rows = hidden_states if positions is None else gather_rows(hidden_states, positions)
    rows = transformed(rows, transform, norm)
    needs_gradients = torch.is_grad_enabled() and any(each.requires_grad for each in (rows, *decoder))
    loss, *_ = _linear_cross_entropy(rows, decoder, predictions._replace(positions=None), vocab_size, needs_gradients)
    return cast(Tensor, loss)


def transformed(rows: Tensor, layer: Linear, norm: Norm) -> Tensor:
    """LayerNorm(gelu(layer(x))) of each row x, the LayerNorm in float32."""
    rows = F.gelu(linear(rows, layer))
    return F.layer_norm(rows.float(), rows.shape[1:], *norm).to(rows.dtype)


@op("linear_cross_entropy")
def _linear_cross_entropy(
    rows: Tensor, decoder: Linear, predictions: Predictions, vocab_size: int, needs_gradients: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss and its gradients in `rows` and `decoder`, in their types; empty unless `needs_gradients`.

    The predictions are of all rows. The gradients come from the forward pass, where the logits are. Floor, with n rows:
    6 n hidden vocabulary operations in three products, and the logits written once, read and written by the kernel, and
    read twice.
    """
    (weight, bias), (_, labels, weights) = decoder, predictions
    count, padded_vocab = rows.shape[0], weight.shape[0]
    rows, labels, weights = rows.contiguous(), labels.contiguous(), weights.contiguous()
    weight, bias = in_type(weight, rows.dtype).contiguous(), bias.contiguous()
    extra = -padded_vocab % 8
    if extra:  # the kernel moves 16 bytes at a time
        weight, bias = F.pad(weight, (0, 0, 0, extra)), F.pad(bias, (0, extra))
    losses = weights.new_empty(count)
    size = _chunk_rows(rows)
    if needs_gradients:
        d_rows = torch.empty_like(rows)
        d_weight = None
        bias_slices = bias.new_zeros(_slices(rows), padded_vocab + extra)

    with torch.cuda.device_of(rows):
        for begin in range(0, count, size):
            part = slice(begin, min(begin + size, count))
            logits = matrix_product(rows[part], weight.T)
            sums = bias_slices if needs_gradients else None
            native.mlm_loss(logits, bias, labels[part], weights[part], vocab_size, losses[part], sums)
            if needs_gradients:
                d_rows[part] = matrix_product(logits, weight)
                d_weight = product_over_rows(logits, rows[part], d_weight)
            del logits  # before the next chunk's are allocated
    if not needs_gradients:
        return losses.sum(), rows.new_empty(0), weight.new_empty(0), bias.new_empty(0)
    d_weight = (torch.zeros_like(weight) if d_weight is None else d_weight).to(decoder.weight.dtype)
    return losses.sum(), d_rows, d_weight[:padded_vocab].contiguous(), bias_slices[:, :padded_vocab].sum(0)


def _chunk_rows(rows: Tensor) -> int:
    """How many rows of logits exist at a time.

    More rows make fewer passes over the gradient of the decoder's weight, which every chunk reads and writes. Logits of
    fewer rows stay in the cache. In bfloat16 the products are so fast that the passes weigh more.
    """
    if rows.is_cuda:
        return 4096
    if rows.dtype == torch.float32:
        return 256
    return 512 if multiplied_by_kernel(rows.device, rows.dtype) else max(1024, 4 * rows.shape[1] // 3)


def _slices(rows: Tensor) -> int:
    """The number of partial sums of the bias's gradient: one for each thread; on a GPU, enough to fill it."""
    return 64 if rows.is_cuda else torch.get_num_threads()


@_linear_cross_entropy.register_fake
def _(
    rows: Tensor, decoder: Linear, predictions: Predictions, vocab_size: int, needs_gradients: bool
) -> tuple[Tensor, ...]:
    gradients = (each.new_empty(each.shape if needs_gradients else 0) for each in (rows, *decoder))
    return predictions.weights.new_empty(()), *gradients


def _save(arguments: Sequence[Any], result: tuple[Tensor, ...]) -> Sequence[Any]:
    return result[1:]


@once_differentiable
def _scaled(gradients: Sequence[Tensor], d_loss: Tensor) -> tuple[Tensor, ...]:
    # In training it is 1: no need for passes over a matrix of the vocabulary's size. Asking a GPU would stop the host.
    if is_traced(d_loss) or d_loss.is_cuda or d_loss != 1:
        gradients = [gradient * d_loss for gradient in gradients]
    return tuple(gradients)


def _backward(gradients: Sequence[Tensor], d_loss: Tensor) -> Sequence[Any]:
    d_rows, *d_decoder = _scaled(gradients, d_loss)
    return d_rows, d_decoder, None, None, None


_linear_cross_entropy.register_autograd(_save, _backward)
