"""Keeping the vectors of the model that a run starts from."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
import torch
import transformers
from support.command_line import metrics
from support.small_run import ALONE, CONFIG, CPU, SHARDED, make_model
from support.torch_threads import torch_threads

from bertfast.errors import InputError
from bertfast.hub.state_dict import export_state_dict
from bertfast.inference.encoder import Encoder
from bertfast.sampling.padding import fill, rounded
from bertfast.sampling.sampler import Sampler
from bertfast.training import trainer
from bertfast.training.gradients import Shares, make_gradients
from bertfast.training.launch import train
from bertfast.training.setup import Setup
from bertfast.training.teacher import Teacher

POOLINGS = {
    "mean": lambda states: states.mean(0),
    "max": lambda states: states.amax(0),
    "cls": lambda states: states[0],
}
KEEPING = dataclasses.replace(CONFIG, objective="none", keep_vectors=20.0, lr=1e-3, deterministic=True)


@pytest.fixture
def start(corpus):
    """A model that has been trained, with weights large enough that texts have vectors of their own."""
    model = make_model(corpus, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    with torch.no_grad():
        for each in model.parameters():
            if each.dim() == 2:
                each.mul_(10)
    model.trained_len = 24
    return model


@pytest.mark.parametrize("objective", ["none", "nsp"])
def test_vectors_are_of_the_text_before_it_is_masked(corpus, start, objective):
    """By transformers, from padded examples."""
    sampler, count = Sampler(corpus, dataclasses.replace(CONFIG, objective=objective)), 7
    plan = sampler.plan(0, count)
    size = rounded(int(plan.lengths.sum()), int(plan.num_masked.sum()))
    batch, _ = fill(sampler.packed_within(torch.tensor([0]), count, size.tokens, size.predictions), size, 1.0)
    teach = {each: Teacher(start.train(), each, CPU, torch.float32) for each in POOLINGS}
    found = {each: teacher.vectors(batch) for each, teacher in teach.items()}

    padded = sampler.padded(0, count)
    ids = padded.input_ids.clone()
    for row, positions, labels, weights in zip(
        ids, padded.masked_positions, padded.labels, padded.mlm_weights, strict=True
    ):
        row[positions[weights > 0]] = labels[weights > 0]
    assert not torch.equal(ids, padded.input_ids)
    sizes = {name: getattr(start.config, name) for name in start.config.__dataclass_fields__}
    theirs = transformers.BertForPreTraining(transformers.BertConfig(**sizes)).eval()
    theirs.load_state_dict(export_state_dict(start), strict=False)
    theirs.double()
    with torch.no_grad():
        states = theirs.bert(ids, padded.attention_mask, padded.token_type_ids).last_hidden_state
    pairs = [row[mask.bool()] for row, mask in zip(states, padded.attention_mask, strict=True)]
    for pooling, pool in POOLINGS.items():
        vectors = found[pooling].vectors
        assert (vectors.dtype, found[pooling].pooling) == (torch.float32, pooling)
        torch.testing.assert_close(vectors.double(), torch.stack([*map(pool, pairs)]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_loss_is_the_weighted_mean_of_1_minus_cosine(corpus, start, pooling):
    """Of a model that has moved away, by float64; the gradients of the pieces add up to those of the whole batch."""
    config = dataclasses.replace(KEEPING, batch_size=13, kept_pooling=pooling)
    for module in (start.pooler, start.next_sentence_head):
        module.requires_grad_(False)
    setup = Setup(start, [Sampler(corpus, config)], config, ALONE, torch.float32).with_teachers()
    before = setup.teachers[0]
    with torch.no_grad():
        for each in start.parameters():
            each.add_(0.3 * torch.randn(each.shape, generator=torch.Generator().manual_seed(0)))
    batch = setup.sampler.packed(0, 13)
    with torch.no_grad():
        now = start.hidden_states(batch, torch.float32).double()
    kept = before.vectors(batch).vectors.double()
    states = [now[begin:end] for begin, end in itertools.pairwise(batch.cu_seqlens.tolist())]
    expected = 20 * (1 - torch.cosine_similarity(torch.stack([*map(POOLINGS[pooling], states)]), kept)).mean().item()
    assert expected > 1

    losses, whole = make_gradients(setup)(Shares(setup, 0))
    assert losses[2].item() == pytest.approx(expected, rel=1e-4)
    summed, pieces = make_gradients(setup._replace(world=SHARDED))(Shares(setup, 0))
    torch.testing.assert_close(summed, losses, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pieces, whole, rtol=1e-3, atol=1e-5)


def test_vectors_stay(corpus, start):
    """A run moves them far less than the same run without the term."""
    texts = [f"w{i} w{i + 7} w{3 * i % 30} ." for i in range(23)]
    before = Encoder(start.eval(), corpus.tokenizer).embed(texts)
    state = {name: each.clone() for name, each in start.state_dict().items()}
    distances = {}
    for weight in (0.0, 20.0):
        start.load_state_dict(state)
        run = train(start.train(), corpus, dataclasses.replace(KEEPING, steps=30, keep_vectors=weight))
        after = Encoder(run.model, corpus.tokenizer).embed(texts)
        distances[weight] = (1 - torch.cosine_similarity(before, after)).mean().item()
    assert 4 * distances[20.0] < distances[0.0]


def test_a_resumed_run_keeps_the_vectors_of_its_start(corpus, start, tmp_path, monkeypatch, said):
    """On any number of threads it ends with the same bits as one that was never stopped, and records the term."""
    state = {name: each.clone() for name, each in start.state_dict().items()}
    config = dataclasses.replace(KEEPING, steps=6, checkpoint_every=3)

    def trained(folder, resume=False, threads=1):
        start.load_state_dict(state)
        with torch_threads(threads):
            return train(start.train(), corpus, config, tmp_path / folder, resume)

    whole = [each.clone() for each in trained("whole").model.parameters()]
    record = trainer.Trainer._record

    def crashing(self, step, measured):
        if step == 4:
            raise ZeroDivisionError
        record(self, step, measured)

    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(trainer.Trainer, "_record", crashing)
        trained("parts", threads=2)
    again = trained("parts", resume=True, threads=2)
    assert any("step-00000003.safetensors, step 3" in line for line in said)
    assert all(map(torch.equal, again.model.parameters(), whole))
    kept = [line["kept_loss"] for line in metrics(tmp_path / "whole")]
    assert len(kept) == 6
    assert all(each > 0 for each in kept)
    assert (tmp_path / "parts" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["train"]["keep_vectors"] == 20


def test_a_model_without_a_past_has_no_vectors_to_keep(corpus):
    with pytest.raises(InputError, match="--keep-vectors keeps what a trained model's vectors say: give --init"):
        train(make_model(corpus), corpus, KEEPING)
