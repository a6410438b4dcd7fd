"""Filled batches: few sizes, and the losses and gradients of the batch itself."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.random_model import make_config, random_batch, randomised
from support.small_run import ALONE, CONFIG, make_model
from torch import Tensor

from bertfast.sampling.batch import PackedBatch
from bertfast.sampling.padding import LEAST_PREDICTIONS, LEAST_TOKENS, Buckets, fill, multiple, rounded
from bertfast.sampling.sampler import Sampler
from bertfast.training.gradients import Shares
from bertfast.training.setup import Setup

# ---- buckets


def bucketed(sampler: Sampler, buckets: Buckets, first: int, count: int):
    plan = sampler.plan(first, count)
    bucket = buckets.of([int(plan.lengths.sum())], [int(plan.num_masked.sum())])
    batch = sampler.packed_within(torch.tensor([first]), count, bucket.tokens, bucket.predictions)
    return bucket, batch, fill(batch, bucket, 1 / sampler.predictions(torch.tensor([first]), count))


@pytest.mark.parametrize("objective", ["nsp", "none"])
def test_buckets_change_no_gradient(corpus, objective):
    """Several steps with dropout, against the batch without fillers."""
    config = dataclasses.replace(CONFIG, objective=objective)
    model = make_model(corpus).train()
    sampler, buckets = Sampler(corpus, config), Buckets(config.batch_size, config.max_len)
    setup = Setup(model, [sampler], config, ALONE, torch.float32)
    parameters = [each for name, each in model.named_parameters() if objective == "nsp" or "layers" in name]
    for step in range(3):
        _, _, whole = bucketed(sampler, buckets, step * config.batch_size, config.batch_size)
        ours = torch.stack(model(*whole, config.seed, torch.float32))
        theirs = Shares(setup, step).losses(model, 0, 1)
        pairs = zip(
            [ours, *torch.autograd.grad(ours.sum(), parameters)],
            [theirs, *torch.autograd.grad(theirs.sum(), parameters)],
            strict=True,
        )
        for mine, its in pairs:
            torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fillers_give_the_embeddings_no_gradient(corpus, dtype):
    """Exactly none: a GPU would add it by cu_seqlens to positions that a filler does not have."""
    model, sampler = make_model(corpus).train(), Sampler(corpus, CONFIG)
    embedded = []
    model.embeddings.register_forward_hook(lambda module, given, out: embedded.append(out[0]))
    _, _, (whole, weights) = bucketed(sampler, Buckets(CONFIG.batch_size, CONFIG.max_len), 0, CONFIG.batch_size)
    (grad,) = torch.autograd.grad(sum(model(whole, weights, CONFIG.seed, dtype)), embedded)
    own = whole.cu_seqlens[CONFIG.batch_size]
    assert grad[:own].any(1).all()
    assert len(grad[own:]) > 0
    assert not grad[own:].any()


@pytest.mark.parametrize(("count", "max_len"), [(12, 24), (1, 5), (300, 5), (2048, 24)])
def test_fillers_are_valid_sequences(corpus, count, max_len):
    """None is empty or too long; no prediction is a first token or occurs twice; the batch itself stays the same."""
    sampler = Sampler(corpus, dataclasses.replace(CONFIG, max_len=max_len))
    buckets, sizes = Buckets(count, max_len), set()
    for first in range(0, 5 * count, count):
        bucket, batch, (whole, weights) = bucketed(sampler, buckets, first, count)
        sizes.add(bucket)
        plain = sampler.packed(first, count)
        tokens, own = plain.input_ids.numel(), plain.labels.numel()
        assert bucket[:2] == (whole.input_ids.numel(), whole.labels.numel())
        assert bucket.tokens % 128 == bucket.predictions % 128 == 0
        for name in ("input_ids", "token_type_ids", "position_ids", "row_keys"):
            assert torch.equal(getattr(batch, name)[:tokens], getattr(plain, name))
            assert not getattr(batch, name)[tokens:].any()
        assert torch.equal(whole.labels[:own], plain.labels)
        assert torch.equal(whole.masked_positions[:own], plain.masked_positions)
        assert torch.equal(whole.next_sentence_label, plain.next_sentence_label)
        assert torch.equal(
            weights, torch.full((own,), 1 / own).new_zeros(bucket.predictions).index_fill(0, torch.arange(own), 1 / own)
        )

        assert torch.equal(whole.cu_seqlens[: count + 1], plain.cu_seqlens)
        lengths = whole.cu_seqlens[count:].diff()
        assert whole.cu_seqlens[-1] == bucket.tokens
        assert lengths.min() >= 1
        assert lengths.max() <= max_len
        fillers = whole.masked_positions[own:]
        assert (whole.masked_positions.diff() > 0).all()
        assert not torch.isin(fillers, whole.cu_seqlens).any()
        assert (fillers > tokens).all()
        assert (fillers < bucket.tokens).all()
    assert len(sizes) < 5


def test_every_batch_fits_its_bucket():
    """The fillers hold the missing predictions, and a bucket is little more than a step larger than the batch."""
    for count, max_len in ((12, 24), (512, 64), (2048, 128), (3, 5)):
        buckets = Buckets(count, max_len)
        step = max(1024, count * max_len // 32 + 128)
        for tokens in range(5 * count, count * max_len + 1, max(1, count * max_len // 500)):
            for predictions in (count, max(count, tokens // 7), tokens - 2 * count):
                bucket = buckets.of([tokens], [predictions])
                room, missing = bucket.tokens - tokens, bucket.predictions - predictions
                assert 0 <= missing < step // 8 + 1
                assert bucket.fillers + missing + missing // (max_len - 1) <= room <= bucket.fillers * max_len
                assert room < step * 1.2 + bucket.fillers + step / 8 / (max_len - 1)


@given(st.data())
@settings(max_examples=300, derandomize=True)
def test_one_bucket_fits_the_batches_of_all_ranks(data):
    """The batches can differ as much as they like."""
    max_len = data.draw(st.integers(5, 130))
    count = data.draw(st.integers(1, 3000))
    buckets = Buckets(count, max_len)
    tokens = data.draw(st.lists(st.integers(5 * count, max(5, max_len) * count), min_size=1, max_size=9))
    predictions = [data.draw(st.integers(count, max(count, own - 2 * count))) for own in tokens]
    bucket = buckets.of(tokens, predictions)
    for own, asked in zip(tokens, predictions, strict=True):
        room, missing = bucket.tokens - own, bucket.predictions - asked
        assert missing >= 0
        assert bucket.fillers + missing + missing // (max_len - 1) <= room <= bucket.fillers * max_len


# ---- rounding


MODEL = make_config(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)
COLUMNS = {"tokens": ("input_ids", "token_type_ids", "position_ids", "row_keys"), "predictions": ("labels",)}


def rounded_up(batch: PackedBatch, weight: float) -> tuple[PackedBatch, Tensor]:
    """The batch rounded up; `F.pad` makes its tensors longer, as the sampler does."""
    size = rounded(batch.input_ids.numel(), batch.labels.numel())
    columns = {name: getattr(size, kind) for kind, names in COLUMNS.items() for name in names}
    columns["masked_positions"] = size.predictions
    longer = {name: F.pad(getattr(batch, name), (0, n - getattr(batch, name).numel())) for name, n in columns.items()}
    return fill(batch._replace(**longer), size, weight)


@pytest.mark.parametrize("predictions_per_sequence", [0, 4, 16])  # 0, 16 and 50 of 123 tokens
@pytest.mark.parametrize("pairs", [True, False])
def test_rounding_changes_no_gradient(predictions_per_sequence: int, pairs: bool) -> None:
    batch, _ = random_batch(MODEL, predictions_per_sequence=predictions_per_sequence)
    if not pairs:
        batch = batch._replace(next_sentence_label=torch.empty(0, dtype=torch.int64))
    count = batch.labels.numel()
    weight = 1 / max(1, count)
    whole, weights = rounded_up(batch, weight)
    assert whole.input_ids.numel() % LEAST_TOKENS == 0
    assert whole.labels.numel() % LEAST_PREDICTIONS == 0
    assert whole.labels.numel() - count < LEAST_PREDICTIONS

    model = randomised(MODEL).train()
    parameters = [parameter for parameter in model.parameters() if pairs or parameter.shape[0] != 2]
    results = []
    for inputs in ((batch, torch.full((count,), weight)), (whole, weights)):
        losses = model(*inputs, 3, torch.float32)
        gradients = torch.autograd.grad(sum(losses), parameters, materialize_grads=True, allow_unused=True)
        results.append([*losses, *gradients])
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("number", "least", "expected"),
    [(0, 32, 32), (45, 16, 16), (511, 16, 16), (512, 16, 32), (1023, 32, 32), (1024, 32, 64), (100_000, 32, 4096)],
)
def test_multiples(number: int, least: int, expected: int) -> None:
    """Powers of two, a 32nd to a 16th of a large number."""
    assert multiple(number, least) == expected


@pytest.mark.parametrize(("extra", "tokens"), [(0, 32), (1, 32), (15, 32), (0, 31), (1, 30), (15, 17)])
def test_sizes_of_the_filler(extra: int, tokens: int) -> None:
    """There is always a filler, which has more tokens than predictions, since its first token is never predicted."""
    batch, _ = random_batch(MODEL, predictions_per_sequence=4)
    masked = LEAST_PREDICTIONS - extra
    batch = batch._replace(
        **{name: getattr(batch, name).repeat(2)[:tokens] for name in COLUMNS["tokens"]},
        cu_seqlens=torch.tensor([0, tokens], dtype=torch.int32),
        masked_positions=torch.arange(masked),
        cu_masked=torch.tensor([0, masked], dtype=torch.int32),
        labels=torch.arange(masked),
        max_seqlen=tokens,
    )
    whole, weights = rounded_up(batch, 1.0)
    added = -tokens % LEAST_TOKENS
    added += LEAST_TOKENS * (added <= extra)
    assert whole.cu_seqlens.tolist() == [0, tokens, tokens + added]
    assert whole.input_ids.numel() == tokens + added
    assert whole.max_seqlen == max(tokens, added)
    assert weights.tolist() == [1.0] * masked + [0.0] * extra
    assert whole.masked_positions.tolist() == [*range(masked), *range(tokens + added - extra, tokens + added)]
