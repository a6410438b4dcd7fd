"""Filled batches: few sizes, and the losses and gradients of the batch as it was."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_run import CONFIG, make_model

from bertfast.sampling.padding import Buckets, fill
from bertfast.sampling.sampler import Sampler
from bertfast.training.gradients import Shares


def filled(sampler: Sampler, buckets: Buckets, first: int, count: int):
    plan = sampler.plan(first, count)
    bucket = buckets.of([int(plan.lengths.sum())], [int(plan.num_masked.sum())])
    batch = sampler.packed_within(torch.tensor([first]), count, bucket.tokens, bucket.predictions)
    return bucket, batch, fill(batch, bucket, 1 / sampler.predictions(torch.tensor([first]), count))


@pytest.mark.parametrize("objective", ["nsp", "none"])
def test_nothing_of_the_fillers_is_learned(corpus, objective):
    """Several steps, dropout on, against the batch in its own size."""
    config = dataclasses.replace(CONFIG, objective=objective)
    model = make_model(corpus).train()
    sampler, buckets = Sampler(corpus, config), Buckets(config.batch_size, config.max_len)
    parameters = [each for name, each in model.named_parameters() if objective == "nsp" or "layers" in name]
    for step in range(3):
        _, _, whole = filled(sampler, buckets, step * config.batch_size, config.batch_size)
        ours = torch.stack(model(*whole, config.seed, torch.float32))
        theirs = Shares(sampler, step, config).losses(model, sampler, 0, 1, torch.float32)
        pairs = zip(
            [ours, *torch.autograd.grad(ours.sum(), parameters)],
            [theirs, *torch.autograd.grad(theirs.sum(), parameters)],
            strict=True,
        )
        for mine, its in pairs:
            torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fillers_hand_no_gradient_to_the_embeddings(corpus, dtype):
    """Exactly none: a GPU adds it up by cu_seqlens, as if a filler's positions were not all 0."""
    model, sampler = make_model(corpus).train(), Sampler(corpus, CONFIG)
    embedded = []
    model.embeddings.register_forward_hook(lambda module, given, out: embedded.append(out[0]))
    _, _, (whole, weights) = filled(sampler, Buckets(CONFIG.batch_size, CONFIG.max_len), 0, CONFIG.batch_size)
    (grad,) = torch.autograd.grad(sum(model(whole, weights, CONFIG.seed, dtype)), embedded)
    own = whole.cu_seqlens[CONFIG.batch_size]
    assert grad[:own].any(1).all()
    assert len(grad[own:]) > 0
    assert not grad[own:].any()


@pytest.mark.parametrize(("count", "max_len"), [(12, 24), (1, 5), (300, 5), (2048, 24)])
def test_fillers_are_sequences(corpus, count, max_len):
    """None is empty or too long, none of their predictions is a first token or comes twice; the batch stays whole."""
    sampler = Sampler(corpus, dataclasses.replace(CONFIG, max_len=max_len))
    buckets, sizes = Buckets(count, max_len), set()
    for first in range(0, 5 * count, count):
        bucket, batch, (whole, weights) = filled(sampler, buckets, first, count)
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


def test_every_size_has_its_bucket():
    """The fillers have room for what is missing, whatever is; a bucket wastes little more than its step."""
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
def test_one_bucket_has_room_for_every_ranks_batch(data):
    """However different they are."""
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
