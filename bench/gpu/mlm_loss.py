"""The masked-LM loss, chunked and fused: the time of loss and gradients, and their errors against float64."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from ceilings import shapes
from stage import arguments, require, save
from timing import captured, median_seconds
from torch import Tensor
from workloads import workload

from bertfast.ops import reference
from bertfast.ops.arguments import Linear, LMHead, Norm, Predictions
from bertfast.ops.masked_lm_loss import masked_lm_loss

WIDTHS = (128, 256)  # of the fused kernel's two sizes
LEAVES = ("hidden_states", "decoder_weight", "decoder_bias")


def inputs(rows: int, hidden: int, vocab_size: int, device: str) -> dict[str, Tensor | int | None]:
    """As in training: the hidden states are the predicted rows and an eighth more."""
    generator = torch.Generator().manual_seed(0)
    tokens = rows + rows // 8

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    return {
        "hidden_states": normal(tokens, hidden).bfloat16(),
        "positions": torch.randperm(tokens, generator=generator)[:rows].sort().values.to(device),
        "labels": torch.randint(vocab_size, (rows,), generator=generator).to(device),
        "weights": torch.full((rows,), 1 / rows, device=device),
        "transform_weight": normal(hidden, hidden) / hidden**0.5,
        "transform_bias": normal(hidden),
        "layer_norm_weight": torch.ones(hidden, device=device),
        "layer_norm_bias": torch.zeros(hidden, device=device),
        "decoder_weight": (normal(vocab_size, hidden) / hidden**0.5).bfloat16(),
        "decoder_bias": normal(vocab_size),
        "vocab_size": vocab_size,
    }


def gradients(loss: Callable[..., Tensor], values: dict[str, Tensor | int | None], **form: bool) -> dict[str, Tensor]:
    leaves = {name: values[name].detach().requires_grad_() for name in LEAVES}
    v = {**values, **leaves}
    head = LMHead(
        Linear(v["transform_weight"], v["transform_bias"]),
        Norm(v["layer_norm_weight"], v["layer_norm_bias"], 1e-12),
        Linear(v["decoder_weight"], v["decoder_bias"]),
        v["vocab_size"],
    )
    found = loss(v["hidden_states"], Predictions(v["positions"], v["labels"], v["weights"]), head, **form)
    return {"loss": found.detach(), **dict(zip(LEAVES, torch.autograd.grad(found, leaves.values()), strict=True))}


def errors(got: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    """Norm of the difference over norm of the truth."""
    return {name: float((got[name].double() - truth[name]).norm() / truth[name].norm()) for name in truth}


def main() -> None:
    options = arguments()
    require(options.device)
    chosen = workload("notebook", options.device, options.tiny)
    sizes: list[dict[str, Any]] = []
    given = []
    for hidden in WIDTHS:
        model = dataclasses.replace(chosen.model, hidden_size=hidden)
        rows, _, vocab_size = shapes(model, chosen.train)["vocabulary"]
        values = inputs(rows, hidden, vocab_size, options.device)
        wide = {
            name: each.double() if torch.is_tensor(each) and each.is_floating_point() else each
            for name, each in values.items()
        }
        given.append((values, gradients(reference.masked_lm_loss, wide)))
        sizes.append({"rows_hidden_words": (rows, hidden, vocab_size)})
    # One form at all sizes, then the other: after an illegal address nothing else runs in this process.
    for name, fused in {"chunks": False, "fused": True}.items():
        if fused and options.device == "cpu":
            continue
        for entry, (values, truth) in zip(sizes, given, strict=True):
            call = functools.partial(gradients, masked_lm_loss, values, fused=fused)
            entry[name] = {"errors": errors(call(), truth)}
            save({"sizes": sizes})
            work = call if options.device == "cpu" else captured(call)
            entry[name]["ms"] = 1e3 * median_seconds(work, options.device)
            save({"sizes": sizes})


if __name__ == "__main__":
    main()
