"""Arguments of the masked-LM loss, and its loss and gradients as a dictionary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bertfast.ops import masked_lm_loss as module
from bertfast.ops import reference
from bertfast.ops.arguments import Linear, LMHead, Norm, Predictions

# rows, hidden, vocabulary, padded vocabulary: none divides the next, one row, more rows than a chunk
SIZES = [(1, 33, 123, 123), (7, 96, 128, 128), (252, 33, 129, 256), (507, 128, 123, 131), (2100, 33, 129, 130)]


LARGE = (507, 96, 6899, 6912)


FLOATS = (
    "hidden_states",
    "transform_weight",
    "transform_bias",
    "layer_norm_weight",
    "layer_norm_bias",
    "decoder_weight",
    "decoder_bias",
)


Arguments = dict[str, Any]


def by_name(function: Callable[..., Tensor], **options: bool) -> Callable[..., Tensor]:
    """`function`, taking the entries of `arguments` as keyword arguments."""

    def loss(
        hidden_states: Tensor,
        positions: Tensor | None,
        labels: Tensor,
        weights: Tensor,
        transform_weight: Tensor,
        transform_bias: Tensor,
        layer_norm_weight: Tensor,
        layer_norm_bias: Tensor,
        decoder_weight: Tensor,
        decoder_bias: Tensor,
        vocab_size: int,
    ) -> Tensor:
        transform, decoder = Linear(transform_weight, transform_bias), Linear(decoder_weight, decoder_bias)
        norm = Norm(layer_norm_weight, layer_norm_bias, 1e-12)
        predictions = Predictions(positions, labels, weights)
        return function(hidden_states, predictions, LMHead(transform, norm, decoder, vocab_size), **options)

    return loss


masked_lm_loss, masked_lm_loss_twin = by_name(module.masked_lm_loss), by_name(reference.masked_lm_loss)


def arguments(size: tuple[int, int, int, int], dtype: torch.dtype = torch.float32, device: str = "cpu") -> Arguments:
    rows, hidden, vocab_size, padded = size
    generator = torch.Generator().manual_seed(sum(size))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    tokens = 2 * rows + 3
    values: Arguments = {
        "hidden_states": normal(tokens, hidden).to(dtype),
        "positions": torch.randperm(tokens, generator=generator)[:rows].sort().values,
        "labels": torch.randint(vocab_size, (rows,), generator=generator),
        "weights": torch.rand(rows, generator=generator) / max(rows, 1),
        "transform_weight": normal(hidden, hidden) / hidden**0.5,
        "transform_bias": normal(hidden),
        "layer_norm_weight": 1 + normal(hidden) / 4,
        "layer_norm_bias": normal(hidden) / 4,
        "decoder_weight": 2 * normal(padded, hidden) / hidden**0.5,
        "decoder_bias": normal(padded),
        "vocab_size": vocab_size,
    }
    if rows:
        values["labels"][-1] = vocab_size - 1
    if rows > 1:
        values["weights"][rows // 2] = 0.0
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in values.items()}


def in_dtype(values: Arguments, dtype: torch.dtype) -> Arguments:
    """With every floating-point tensor in `dtype`."""
    return {
        name: value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in values.items()
    }


def results(loss_function: Any, values: Arguments) -> dict[str, Tensor]:
    """The loss and the gradient of each floating-point argument, for an upstream gradient of 3."""
    leaves = {name: values[name].detach().requires_grad_() for name in FLOATS}
    loss = loss_function(**{**values, **leaves})
    gradients = torch.autograd.grad(3 * loss, list(leaves.values()))
    return {"loss": loss.detach(), **dict(zip(leaves, gradients, strict=True))}


def assert_as_exact_as_torch(loss_function: Any, values: Arguments) -> None:
    """Of values in bfloat16."""
    truth = results(masked_lm_loss_twin, in_dtype(values, torch.float64))
    ours = errors(results(loss_function, values), truth)
    torchs = errors(results(masked_lm_loss_twin, in_dtype(values, torch.bfloat16)), truth)
    for name in truth:
        assert ours[name] <= 2 * torchs[name] + 1e-6, f"{name}: {ours[name]}, torch {torchs[name]}"


def errors(got: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    """Norm of the difference over norm of the truth; 0 where both are 0."""
    return {
        name: float((got[name].double() - truth[name]).norm() / truth[name].norm().clamp_min(1e-300)) for name in truth
    }
