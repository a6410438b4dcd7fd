"""The masked-LM loss, forward and backward, compared with torch's: time and peak memory.

Every candidate gathers the predicted rows of the hidden states and computes the gradients of hidden states, weight and
bias. The head's transform, small and the same for all, is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from memory import peak_memory, peak_of_process
from sizes import sized
from torch import Tensor

from bertfast.ops.arguments import Linear, Predictions
from bertfast.ops.gather_rows import gather_rows
from bertfast.ops.masked_lm_loss import _linear_cross_entropy

# The notebook's batch (512 sequences, 10 predictions each) and WikiText-2's vocabulary; also at BERT-base's width.
ROWS, VOCAB_SIZE = sized((5_120, 20_256), smoke=(256, 1_000))
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Loss = Callable[[], Tensor]


def losses(
    hidden: int, dtype: torch.dtype, rows: int = ROWS, vocab_size: int = VOCAB_SIZE
) -> tuple[dict[str, Loss], list[Tensor]]:
    """Each candidate's loss, and the tensors whose gradients it computes."""
    generator = torch.Generator().manual_seed(0)
    tokens, padded_vocab = 9 * rows // 2, -(-vocab_size // 128) * 128
    hidden_states = torch.randn(tokens, hidden, generator=generator).to(DEVICE, dtype).requires_grad_()
    positions = torch.randperm(tokens, generator=generator)[:rows].sort().values.to(DEVICE)
    labels = torch.randint(vocab_size, (rows,), generator=generator).to(DEVICE)
    weights = torch.full((rows,), 1 / rows, device=DEVICE)
    weight = (torch.randn(padded_vocab, hidden, generator=generator) / hidden**0.5).to(DEVICE).requires_grad_()
    bias = torch.zeros(padded_vocab, device=DEVICE, requires_grad=True)

    def ours() -> Tensor:
        rows = gather_rows(hidden_states, positions)
        decoder, predictions = Linear(weight.to(dtype), bias), Predictions(None, labels, weights)
        return _linear_cross_entropy(rows, decoder, predictions, vocab_size, True)[0]

    def linear() -> tuple[Tensor, Tensor, Tensor]:
        return hidden_states[positions], weight[:vocab_size].to(dtype), bias[:vocab_size].to(dtype)

    def plain() -> Tensor:
        return (weights * F.cross_entropy(F.linear(*linear()), labels, reduction="none")).sum()

    found = {"ours": ours, "gather, linear, cross entropy": plain}
    if hasattr(F, "linear_cross_entropy"):

        def fused(options: Any = None) -> Tensor:
            x, matrix, vector = linear()
            return F.linear_cross_entropy(x, matrix, labels, linear_bias=vector, options=options)

        found["F.linear_cross_entropy"] = fused
        found["F.linear_cross_entropy, chunked"] = lambda: fused(torch.nn.LinearCrossEntropyOptions())
    return found, [hidden_states, weight, bias]


def step(loss: Loss, leaves: list[Tensor]) -> Callable[[], None]:
    def run() -> None:
        torch.autograd.grad(loss(), leaves)
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return run


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("hidden", "rows"), [(128, ROWS), pytest.param(768, ROWS // 4, marks=pytest.mark.long)])
def test_time(compare: Callable[..., dict[str, float]], hidden: int, rows: int, dtype: str) -> None:
    candidates, leaves = losses(hidden, DTYPES[dtype], rows)
    steps = {label: step(loss, leaves) for label, loss in candidates.items()}
    name = f"masked-LM loss, {rows} rows, hidden {hidden}, vocabulary {VOCAB_SIZE}, {dtype}"
    compare(name, steps.pop("ours"), steps, items=rows, unit="row")


@pytest.mark.long
@pytest.mark.parametrize("dtype", sized([*DTYPES], smoke=["bfloat16"]))
def test_peak_memory(benchmark: Any, tables: list[list[str]], dtype: str) -> None:
    """Each candidate runs in its own process; the saved time means nothing."""
    benchmark.pedantic(lambda: None)
    table = [f"peak memory beyond the inputs, {ROWS} rows, hidden 128, vocabulary {VOCAB_SIZE}, {dtype}"]
    for label in losses(128, DTYPES[dtype])[0]:
        benchmark.extra_info[f"{label} (peak MB)"] = peak = peak_of_process(__file__, label, dtype)
        table.append(f"  {label:<44} {peak:>14,.0f} MB")
    tables.append(table)


def loss_peak_memory(label: str, dtype: torch.dtype) -> float:
    """Peak megabytes of a candidate's first step beyond its inputs."""
    candidates, leaves = losses(128, dtype, rows=64, vocab_size=1000)
    step(candidates[label], leaves)()  # warms up the libraries' own memory
    candidates, leaves = losses(128, dtype)
    return peak_memory(step(candidates[label], leaves))


if __name__ == "__main__":
    print(round(loss_peak_memory(sys.argv[1], DTYPES[sys.argv[2]]), 1))
