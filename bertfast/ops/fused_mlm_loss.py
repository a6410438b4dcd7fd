"""The masked-LM loss from hidden states in one GPU kernel, whose logits never reach memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from bertfast._native import native
from bertfast.ops.arguments import Linear, Predictions
from bertfast.ops.op import op

MAX_HIDDEN = 256
SHARED_BYTES = 111 << 10
"""The shared memory that a block needs. Data-centre GPUs have that much per multiprocessor, smaller ones 100 KiB."""

BLOCKS = 264
"""Blocks of threads to run at a time: two for each multiprocessor of an H100. The order of sums depends on it."""


def why_not_fused(hidden_size: int, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why `fused_mlm_loss` can't take rows of this size and dtype on `device`; None if it can."""
    if device.type != "cuda":
        return "it is a kernel for GPUs"
    if dtype != torch.bfloat16:
        return "it computes in bfloat16, give --precision bf16"
    if hidden_size % 8 or hidden_size > MAX_HIDDEN:
        return f"it takes hidden sizes that are multiples of 8, up to {MAX_HIDDEN}, not {hidden_size}"
    properties = torch.cuda.get_device_properties(device)
    if properties.shared_memory_per_multiprocessor < SHARED_BYTES:
        return f"it needs more shared memory than {properties.name} has"
    return None


def fused_mlm_loss(rows: Tensor, predictions: Predictions, decoder: Linear, vocab_size: int) -> Tensor:
    """`sum_i weights_i CE(D rows[positions_i] + b, labels_i)`; CE is cross entropy over the first `vocab_size` words.

    Tensor cores compute a tile of logits at a time, and only the log-sum-exps are kept. The backward pass computes the
    tiles again, once for the gradient of the rows and once for those of D and b, and rounds each gradient of a logit to
    bfloat16 for the product that follows. Sums are taken in a fixed order, in float32. Rows of weight 0 at the end are
    skipped. Floor, with n rows: 10 n hidden vocabulary operations, and every tensor read and written once.

    Args:
        rows: (sources, hidden) bfloat16 on a CUDA device, hidden a multiple of 8 up to 256; see `why_not_fused`.
        predictions: a label outside [0, vocab_size), or a position outside `rows`, makes the loss NaN.
        decoder: D (padded_vocab, hidden) bfloat16 and b (padded_vocab,) float32; see `masked_lm_loss`.

    Returns:
        The loss, a float32 scalar. Differentiable, once, in `rows` and `decoder`.
    """
    loss, _ = _fused_mlm_loss(rows, predictions, decoder, vocab_size)
    return cast(Tensor, loss)


def _splits(count: int, hidden: int, vocab_size: int) -> int:
    """The number of parts of the vocabulary, such that BLOCKS blocks run, each of 128 rows or of 64 wide ones."""
    tiles = -(-count // (128 if hidden <= 128 else 64))
    return max(1, min(BLOCKS // max(1, tiles), -(-vocab_size // 64)))


def _backward_splits(count: int, hidden: int, vocab_size: int) -> int:
    """The same for the gradient of the rows, whose blocks run beside the decoder's, one for each 64 words.

    A block of either kind takes time in proportion to the tiles of the other kind that it loops over. The number is
    such that all blocks fill whole rounds of BLOCKS, and none of them takes much longer than the rest.
    """
    tiles, words = max(1, -(-count // (128 if hidden <= 128 else 64))), -(-vocab_size // 64)
    rounds = -(-words // BLOCKS)
    while (splits := (rounds * BLOCKS - words) // tiles) < words / (2 * tiles):
        rounds += 1
    return max(1, min(splits, words))


@op("fused_mlm_loss")
def _fused_mlm_loss(rows: Tensor, predictions: Predictions, decoder: Linear, vocab_size: int) -> tuple[Tensor, Tensor]:
    """The loss, and (n, 4) float32, from which the backward pass rebuilds a row's probabilities."""
    inputs = _for_kernel(rows, predictions, decoder, vocab_size)
    count, weights = predictions.labels.shape[0], predictions.weights
    partial = weights.new_empty(_splits(count, rows.shape[1], vocab_size), count, 2)
    label_logits, losses, statistics = weights.new_empty(count), weights.new_empty(count), weights.new_empty(count, 4)
    with torch.cuda.device_of(rows):
        native.fused_mlm_loss(*inputs, partial, label_logits, losses, statistics)
    return losses.sum(), statistics


def _for_kernel(rows: Tensor, predictions: Predictions, decoder: Linear, vocab_size: int) -> tuple[Any, ...]:
    positions, labels, weights = predictions
    weight, bias = decoder
    return (
        rows.contiguous(),
        positions,
        weight.contiguous(),
        bias,
        labels.contiguous(),
        weights.contiguous(),
        vocab_size,
    )


@_fused_mlm_loss.register_fake
def _(rows: Tensor, predictions: Predictions, decoder: Linear, vocab_size: int) -> Any:
    return decoder.bias.new_empty(()), decoder.bias.new_empty(predictions.labels.shape[0], 4)


@op("fused_mlm_loss_backward")
def _fused_mlm_loss_backward(
    grad: Tensor,
    rows: Tensor,
    predictions: Predictions,
    decoder: Linear,
    vocab_size: int,
    statistics: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the rows, and of the decoder's weight and bias."""
    inputs = _for_kernel(rows, predictions, decoder, vocab_size)
    count, hidden = predictions.labels.shape[0], rows.shape[1]
    partial = predictions.weights.new_empty(_backward_splits(count, hidden, vocab_size), count, hidden)
    rows = inputs[0]
    grad_rows = torch.empty_like(rows) if predictions.positions is None else torch.zeros_like(rows)
    grads = (grad_rows, torch.empty_like(inputs[2]), torch.empty_like(decoder.bias))
    with torch.cuda.device_of(rows):
        native.fused_mlm_loss_backward(*inputs, statistics, grad.contiguous(), partial, *grads)
    return grads


_fused_mlm_loss_backward.returns_like(lambda grad, rows, predictions, decoder, *_: (rows, *decoder))


def _save(arguments: Sequence[Any], result: tuple[Tensor, Tensor]) -> Sequence[Any]:
    _, statistics = result
    return *arguments, statistics


def _backward(saved: Sequence[Any], grad: Tensor) -> Sequence[Any]:
    grad_rows, *grad_decoder = _fused_mlm_loss_backward(grad, *saved)
    return grad_rows, None, grad_decoder, None


_fused_mlm_loss.register_autograd(_save, _backward)
