"""Rounded batches: sizes that come again, and the losses and gradients of the batch as it was."""

from __future__ import annotations

import pytest
import torch
from support.random_model import make_config, random_batch, randomised

from bertfast.sampling.rounding import LEAST_TOKENS, PREDICTIONS, rounded, token_multiple

CONFIG = make_config(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)


@pytest.mark.parametrize("predictions_per_sequence", [0, 4, 16])  # of 123 tokens, 0, 16 and 50
@pytest.mark.parametrize("pairs", [True, False])
def test_nothing_of_the_padding_is_learned(predictions_per_sequence: int, pairs: bool) -> None:
    sequences, _, predictions = random_batch(CONFIG, predictions_per_sequence=predictions_per_sequence)
    if not pairs:
        predictions = predictions._replace(next_sentence_label=torch.empty(0, dtype=torch.int64))
    count = predictions.labels.numel()
    asked = (sequences, predictions, torch.full((count,), 1 / max(1, count)))
    whole = rounded(*asked)
    assert whole[0].input_ids.numel() % LEAST_TOKENS == 0
    assert whole[1].labels.numel() % PREDICTIONS == 0
    assert whole[1].labels.numel() - count < PREDICTIONS

    model = randomised(CONFIG).train()
    parameters = [parameter for parameter in model.parameters() if pairs or parameter.shape[0] != 2]
    results = []
    for inputs in (asked, whole):
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


@pytest.mark.parametrize("extra", [0, 1, 63])
def test_sizes_already_whole(extra: int) -> None:
    """The padding's first token is read, so there is always one, and one more than its predictions."""
    sequences, _, predictions = random_batch(CONFIG, predictions_per_sequence=4)
    tokens, masked = LEAST_TOKENS, PREDICTIONS - extra
    lengths = torch.tensor([0, tokens], dtype=torch.int32)
    sequences = sequences._replace(
        **{name: getattr(sequences, name).repeat(2)[:tokens] for name in ("input_ids", "token_type_ids", "row_keys")},
        position_ids=torch.arange(tokens),
        cu_seqlens=lengths,
        max_seqlen=tokens,
    )
    predictions = predictions._replace(masked_positions=torch.arange(masked), labels=torch.arange(masked))
    sequences, predictions, weights = rounded(sequences, predictions, torch.ones(masked))
    assert sequences.cu_seqlens.tolist() == [0, tokens, sequences.input_ids.numel()]
    assert sequences.input_ids.numel() - tokens == LEAST_TOKENS
    assert weights.tolist() == [1.0] * masked + [0.0] * extra
    assert predictions.masked_positions[masked:].gt(tokens).all()
