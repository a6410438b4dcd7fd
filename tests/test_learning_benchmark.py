"""What the figures of bench/bench_learning.py rest on."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from learning.curve import Curve, Point, mean, one_a_kind
from learning.held_out_loss import bert_loss, notebook_loss, standard_examples
from learning.made_up import made_up_texts
from learning.ours import OURS, Run
from learning.peers import imported, peer_sizes
from learning.race import slice_ends
from peer_steps import notebook_batch, notebook_model, transformers_batch, transformers_model, trimmed
from support.notebook import import_d2l

from bertfast.config import BertConfig, SamplerConfig, TrainConfig
from bertfast.reporting.run_info import RunInfo
from bertfast.sampling.sampler import Sampler
from bertfast.training.schedule import learning_rate


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return made_up_texts(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def examples(texts):
    found = standard_examples(texts.held_out)
    assert found.examples > 64  # more than one batch of an evaluation
    return found


def perturbed(model):
    """With weights so large that each prediction depends on its context."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def test_transformers_own_loss_is_ours_of_its_weights(texts, examples):
    pytest.importorskip("transformers")
    sizes = peer_sizes("tiny", texts.train.vocab_size, dropout=0.1)
    theirs = perturbed(transformers_model(sizes))
    batch = transformers_batch(examples.own.padded(0, examples.examples))
    labels, _ = batch.pop("labels"), batch.pop("next_sentence_label")
    with torch.no_grad():
        logits = theirs.eval()(**batch).prediction_logits
    expected = F.cross_entropy(logits.double().flatten(0, 1), labels.flatten()).item()
    assert bert_loss(imported(theirs, sizes), examples) == pytest.approx(expected, abs=1e-4)


def test_the_notebooks_own_loss_is_what_is_reported_of_it(texts, examples):
    d2l = import_d2l()
    net = perturbed(notebook_model(peer_sizes("tiny", texts.train.vocab_size, dropout=0.2)))
    *batch, _ = notebook_batch(examples.own.padded(0, examples.examples))
    no_pairs = torch.zeros(examples.examples, dtype=torch.int64)

    def each(logits, labels):  # in the form of the weights; the mean, which the notebook takes, counts the padding, too
        return F.cross_entropy(logits, labels, reduction="none").reshape(-1, 1)

    with torch.no_grad():
        expected, *_ = d2l._get_batch_loss_bert(net.eval(), each, texts.train.vocab_size, *batch, no_pairs)
    assert notebook_loss(net.train(), examples) == pytest.approx(expected.item(), abs=1e-4)
    assert net.training


def test_trimming_a_batch_takes_only_padding(texts):
    batch = Sampler(texts.train, SamplerConfig(objective="nsp", segments="sentence")).padded(0, 8)
    found = trimmed(batch)
    longest = max(batch.attention_mask.sum(1).tolist())
    assert found.input_ids.shape == found.token_type_ids.shape == found.attention_mask.shape == (8, longest)
    assert longest < batch.input_ids.shape[1]
    for row in range(8):
        assert torch.equal(found.input_ids[row], batch.input_ids[row, :longest])
        assert not batch.attention_mask[row, longest:].any()


class Clock:
    """That of a machine on which every step takes 50 ms, and nothing else takes time."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("bertfast.training.trainer.time", self)
        monkeypatch.setattr("bertfast.training.trainer.learning_rate", self.learning_rate)  # asked once for each step
        monkeypatch.setattr("learning.ours.time", self)

    def perf_counter(self):
        return self.now

    def learning_rate(self, step, config):
        self.now += 0.05
        return learning_rate(step, config)


def test_our_clock_stands_still_between_slices_and_the_run_ends_on_time(texts, tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    sizes = BertConfig(vocab_size=texts.train.vocab_size, hidden_size=16, num_hidden_layers=1, intermediate_size=16)
    config = TrainConfig(minutes=0.1, batch_size=4, max_len=16, device="cpu", precision="fp32")
    run = Run(OURS, OURS, sizes, config, texts.train, tmp_path / "run")
    ends = slice_ends(config.minutes)
    for end in ends[:-1]:
        run.train_until(end)
        assert end <= run.seconds + 1e-9 < end + 0.11  # a step or two
        clock.now += 1000  # others train
    run.train_until(ends[-1])
    assert run.seconds == pytest.approx(60 * config.minutes, rel=0.03)
    done = [json.loads(line) for line in (tmp_path / "run" / "times.jsonl").read_text().splitlines()]
    assert [each["step"] for each in done] == list(range(RunInfo.read(tmp_path / "run").train.steps))
    assert done[-1]["seconds"] == pytest.approx(run.seconds, abs=1e-3)


def test_slices_end_at_the_whole_time():
    assert slice_ends(2) == [30, 60, 90, 120]
    assert slice_ends(1) == [15, 30, 45, 60]


def curve(kind, label, *points):
    return Curve(kind, label, [Point(*point) for point in points])


def test_time_to_a_loss():
    falling = curve("a", "a", (30, 6.0), (60, 5.0), (90, 5.5), (120, 4.5))
    assert falling.seconds_to(5.75) == pytest.approx(37.5)
    assert falling.seconds_to(5.0) == 60
    assert falling.seconds_to(4.75) == pytest.approx(112.5)
    assert falling.seconds_to(7.0) == 30
    assert falling.seconds_to(4.0) is None


def test_ours_is_the_mean_of_its_seeds_and_others_are_at_their_best():
    seeds = [
        curve(OURS, "ours, seed 0", (30, 6.0), (60, 5.0)),
        curve(OURS, "ours, seed 1", (32, 5.0), (62, 3.0)),
    ]
    rates = [
        curve("transformers", "slow", (30, 6.0), (60, 5.5)),
        curve("transformers", "fast", (30, 7.0), (60, 5.2)),
    ]
    ours, theirs = one_a_kind([*seeds, *rates])
    assert ours == mean("ours, mean of 2 seeds", seeds)
    assert ours.points == [(31, 5.5), (61, 4.0)]
    assert theirs is rates[1]
