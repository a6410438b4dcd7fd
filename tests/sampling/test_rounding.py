"""Rounded batches: sizes that come again, and the losses and gradients of the batch as it was."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.random_model import make_config, random_batch, randomised
from torch import Tensor

from bertfast.sampling.batch import PackedBatch
from bertfast.sampling.padding import LEAST_TOKENS, PREDICTIONS, fill, rounded, token_multiple

CONFIG = make_config(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)
COLUMNS = {"tokens": ("input_ids", "token_type_ids", "position_ids", "row_keys"), "predictions": ("labels",)}


def filled(batch: PackedBatch, weight: float) -> tuple[PackedBatch, Tensor]:
    """Rounded up. The sampler, whose tensors are longer than the batch, is played by `F.pad`."""
    size = rounded(batch.input_ids.numel(), batch.labels.numel())
    columns = {name: getattr(size, kind) for kind, names in COLUMNS.items() for name in names}
    columns["masked_positions"] = size.predictions
    longer = {name: F.pad(getattr(batch, name), (0, n - getattr(batch, name).numel())) for name, n in columns.items()}
    return fill(batch._replace(**longer), size, weight)


@pytest.mark.parametrize("predictions_per_sequence", [0, 4, 16])  # of 123 tokens, 0, 16 and 50
@pytest.mark.parametrize("pairs", [True, False])
def test_nothing_of_the_padding_is_learned(predictions_per_sequence: int, pairs: bool) -> None:
    batch, _ = random_batch(CONFIG, predictions_per_sequence=predictions_per_sequence)
    if not pairs:
        batch = batch._replace(next_sentence_label=torch.empty(0, dtype=torch.int64))
    count = batch.labels.numel()
    weight = 1 / max(1, count)
    whole, weights = filled(batch, weight)
    assert whole.input_ids.numel() % LEAST_TOKENS == 0
    assert whole.labels.numel() % PREDICTIONS == 0
    assert whole.labels.numel() - count < PREDICTIONS

    model = randomised(CONFIG).train()
    parameters = [parameter for parameter in model.parameters() if pairs or parameter.shape[0] != 2]
    results = []
    for inputs in ((batch, torch.full((count,), weight)), (whole, weights)):
        losses = model(*inputs, 3, torch.float32)
        gradients = torch.autograd.grad(sum(losses), parameters, materialize_grads=True, allow_unused=True)
        results.append([*losses, *gradients])
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("tokens", "multiple"), [(0, 128), (45, 128), (4095, 128), (4096, 256), (8191, 256), (8192, 512), (100_000, 4096)]
)
def test_multiples(tokens: int, multiple: int) -> None:
    """Powers of two: for many tokens, of which they are a 32nd to a 16th, as for few."""
    assert token_multiple(tokens) == multiple


@pytest.mark.parametrize(("extra", "tokens"), [(0, 128), (1, 128), (63, 128), (0, 127), (1, 126), (63, 65)])
def test_sizes_already_whole(extra: int, tokens: int) -> None:
    """The padding's first token is read, so there is always one, and one more than its predictions."""
    batch, _ = random_batch(CONFIG, predictions_per_sequence=4)
    masked = PREDICTIONS - extra
    batch = batch._replace(
        **{name: getattr(batch, name).repeat(2)[:tokens] for name in COLUMNS["tokens"]},
        cu_seqlens=torch.tensor([0, tokens], dtype=torch.int32),
        masked_positions=torch.arange(masked),
        cu_masked=torch.tensor([0, masked], dtype=torch.int32),
        labels=torch.arange(masked),
        max_seqlen=tokens,
    )
    whole, weights = filled(batch, 1.0)
    added = -tokens % LEAST_TOKENS
    added += LEAST_TOKENS * (added <= extra)
    assert whole.cu_seqlens.tolist() == [0, tokens, tokens + added]
    assert whole.input_ids.numel() == tokens + added
    assert whole.max_seqlen == max(tokens, added)
    assert weights.tolist() == [1.0] * masked + [0.0] * extra
    assert whole.masked_positions.tolist() == [*range(masked), *range(tokens + added - extra, tokens + added)]
