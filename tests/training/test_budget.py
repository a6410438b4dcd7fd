"""Runs whose length is given in minutes or epochs, by a clock that the test moves."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from support.command_line import metrics
from support.small_run import CONFIG, CPU, make_model

from bertfast.distributed.world import make_world
from bertfast.errors import InputError
from bertfast.reporting import diagnosis
from bertfast.reporting.run_info import RunInfo, corpus_of_run
from bertfast.sampling.inspect import batch_lines
from bertfast.sampling.sampler import Sampler
from bertfast.training import trainer
from bertfast.training.budget import Budget, provisional_steps
from bertfast.training.job import TrainingJob
from bertfast.training.optimizer import Optimizer
from bertfast.training.run_directory import RunDirectory
from bertfast.training.trainer import Trainer

ON_TIME = 0.03  # share of the minutes
TIMED = dataclasses.replace(CONFIG, minutes=1.0, warmup=0.05, decay=0.3)


def seconds_taken(config, seconds_per_step, extra=0.0):
    """The seconds of a run, and its steps, with a step's seconds as a function of its number and the time."""
    budget, done, now = Budget(config, 0, 0.0, extra), 0, 0.0
    config = dataclasses.replace(config, steps=provisional_steps(1.0))
    while done < config.steps:
        is_long = config.short_len and done >= config.first_long_step
        assert not is_long or budget.settled
        now += seconds_per_step(done, now) + extra * bool(is_long)
        done += 1
        if budget.is_due(done):
            config = dataclasses.replace(config, steps=budget.estimate(done, now))
            budget.plan(done, config)
    assert budget.settled
    return now, done


@pytest.mark.parametrize("per_step", [0.004, 0.1, 1.0])
@pytest.mark.parametrize("decay", [0.0, 0.3, 0.95])
def test_a_run_ends_on_time(per_step, decay):
    """The first steps take longer, as they do where products are compiled."""
    config = dataclasses.replace(TIMED, decay=decay)
    seconds, steps = seconds_taken(config, lambda step, now: per_step * (10 if step < 1 else 1))
    assert seconds == pytest.approx(60, rel=ON_TIME)
    assert steps == pytest.approx(60 / per_step, rel=0.2)


@pytest.mark.parametrize("factor", [0.25, 4])
def test_a_machine_whose_speed_changes_in_the_middle(factor):
    seconds, _ = seconds_taken(TIMED, lambda step, now: 0.01 * (factor if now > 25 else 1))
    assert seconds == pytest.approx(60, rel=ON_TIME)


def test_evaluations_are_spread_over_the_steps():
    """Ten evaluations of one second each, wherever they fall among the estimates."""
    budget, done, now, evaluating = Budget(TIMED, 0, 0.0), 0, 0.0, 0.0
    config = dataclasses.replace(TIMED, steps=provisional_steps(1.0))
    while done < config.steps:
        now += 0.08
        done += 1
        if done * 10 // config.steps > (done - 1) * 10 // config.steps and done < config.steps:
            now, evaluating = now + 1.0, evaluating + 1.0
        if budget.is_due(done):
            config = dataclasses.replace(config, steps=budget.estimate(done, now, evaluating))
            budget.plan(done, config)
    assert now == pytest.approx(60, rel=ON_TIME)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_long_examples_at_the_end(decay):
    config = dataclasses.replace(TIMED, short_len=8, decay=decay)
    seconds, steps = seconds_taken(config, lambda step, now: 0.01, extra=0.09)
    assert seconds == pytest.approx(60, rel=ON_TIME)
    assert steps == pytest.approx(60 / (0.9 * 0.01 + 0.1 * 0.1), rel=0.01)


def test_a_step_that_takes_longer_than_the_run():
    assert seconds_taken(TIMED, lambda step, now: 100.0) == (100.0, 1)


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by an eighth of a second with each step. A run crashes at step `until`."""
    state = SimpleNamespace(now=0.0, until=10**9)
    step = Optimizer.step

    def counting(self, *arguments):
        state.now += 0.125
        if self.count >= state.until:
            raise ZeroDivisionError
        step(self, *arguments)

    monkeypatch.setattr(Optimizer, "step", counting)
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: state.now))
    return state


def trained(corpus, config, folder=None, resumed=False):
    directory = RunDirectory(folder, resumed)
    return Trainer(TrainingJob(make_model(corpus), corpus, config), make_world(config, [CPU], [CPU]), directory).train()


def test_a_run_of_some_seconds(corpus, clock, tmp_path):
    """Its steps fit, run.json records them, and after the warm-up every rate is that of a run of so many steps."""
    config = dataclasses.replace(TIMED, minutes=0.125)
    run = trained(corpus, config, tmp_path)
    assert run.config.steps == pytest.approx(60, abs=1)
    assert len(run.history.records) == run.config.steps
    assert RunInfo.read(tmp_path).train == run.config
    lines = [line["lr"] for line in metrics(tmp_path)]
    fall = run.config.decay_steps
    assert lines[10:-fall] == [config.lr] * (run.config.steps - fall - 10)
    assert lines[-fall:] == pytest.approx([config.lr * (fall - i) / fall for i in range(fall)])


def test_it_resumes_exactly(corpus, clock, tmp_path):
    """If it was killed after its number of steps was settled, at whatever speed it is resumed."""
    config = dataclasses.replace(TIMED, minutes=0.125, checkpoint_every=7)
    whole = trained(corpus, config, tmp_path / "whole")
    clock.until = 52
    with pytest.raises(ZeroDivisionError):
        trained(corpus, config, tmp_path / "parts")
    clock.until = 10**9
    clock.now += 1000
    again = trained(corpus, config, tmp_path / "parts", resumed=True)
    assert again.config == whole.config
    assert all(map(torch.equal, again.model.parameters(), whole.model.parameters()))
    assert (tmp_path / "parts" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_a_run_resumed_early_counts_the_time_before(corpus, clock, tmp_path):
    config = dataclasses.replace(TIMED, minutes=0.125, checkpoint_every=7)
    clock.until = 23
    with pytest.raises(ZeroDivisionError):
        trained(corpus, config, tmp_path)
    clock.until = 10**9
    assert trained(corpus, config, tmp_path, resumed=True).config.steps == pytest.approx(60, abs=2)


def test_a_run_that_is_not_settled_has_no_end_yet(corpus, clock, tmp_path, said):
    """Whatever number of steps its settings have: it says so when it is resumed, and any of its steps can be shown."""
    config = dataclasses.replace(TIMED, minutes=5.0, checkpoint_every=60, short_len=12)
    clock.until = 70
    with pytest.raises(ZeroDivisionError):
        trained(corpus, config, tmp_path)
    shown, settings = corpus_of_run(tmp_path)
    heading, *_ = batch_lines(shown, settings, 2000, 1)
    assert heading.startswith("step 2000: examples 24,000 to 24,011")
    assert settings.at(2000).max_len == 12
    said.clear()
    clock.until = 80
    with pytest.raises(ZeroDivisionError):
        trained(corpus, config, tmp_path, resumed=True)
    [resumed] = [line for line in said if line.startswith("resuming from")]
    assert resumed.endswith("step 60")


def test_a_resumed_run_is_judged_by_its_settled_length(corpus, clock, tmp_path, said, monkeypatch):
    monkeypatch.setattr(diagnosis, "_MOST_READINGS", 5)
    config = dataclasses.replace(TIMED, minutes=0.25, checkpoint_every=110)
    clock.until = 115
    with pytest.raises(ZeroDivisionError):
        trained(corpus, config, tmp_path)
    assert RunInfo.read(tmp_path).settled
    [warning] = [line for line in said if "times: after some 5 times" in line]
    said.clear()
    clock.until = 10**9
    assert trained(corpus, config, tmp_path, resumed=True).config.steps == pytest.approx(120, abs=2)
    assert warning in said


def test_long_examples_of_a_run_that_was_given_one_step(corpus):
    """`epochs` has the last word on the number of steps."""
    config = dataclasses.replace(CONFIG, steps=1, epochs=2.0, short_len=12)
    assert trained(corpus, config).config == trained(corpus, dataclasses.replace(config, steps=50)).config


def test_a_run_that_has_ended_can_be_extended(corpus, clock, tmp_path, said):
    """For more steps or minutes; also exactly if it is then interrupted."""
    trained(corpus, CONFIG, tmp_path / "whole")
    longer = dataclasses.replace(CONFIG, steps=20, checkpoint_every=5)
    whole = trained(corpus, longer, tmp_path / "whole", resumed=True)
    assert any("had ended after 3 steps" in line for line in said)
    assert [record.step for record in whole.history.records] == list(range(20))
    trained(corpus, CONFIG, tmp_path / "parts")
    clock.until = 12
    with pytest.raises(ZeroDivisionError):
        trained(corpus, longer, tmp_path / "parts", resumed=True)
    clock.until = 10**9
    parts = trained(corpus, longer, tmp_path / "parts", resumed=True)
    assert all(map(torch.equal, parts.model.parameters(), whole.model.parameters()))
    timed = trained(corpus, dataclasses.replace(CONFIG, minutes=0.125), tmp_path / "parts", resumed=True)
    assert timed.config.steps == pytest.approx(60, abs=3)
    said.clear()
    again = trained(corpus, dataclasses.replace(CONFIG, minutes=0.125), tmp_path / "parts", resumed=True)
    assert again.config == timed.config
    assert not any("had ended" in line for line in said)
    with pytest.raises(InputError, match="--steps: 20 -> 3"):
        trained(corpus, CONFIG, tmp_path / "whole", resumed=True)


@pytest.mark.parametrize("longer", [{"minutes": 0.25}, {"steps": 90}])
def test_a_longer_run_that_crashes_before_its_first_checkpoint_resumes(corpus, clock, tmp_path, longer):
    trained(corpus, dataclasses.replace(TIMED, minutes=0.125), tmp_path)
    ended = RunInfo.read(tmp_path).train.steps
    clock.until = ended + 3
    config = dataclasses.replace(TIMED, **{"minutes": 0.0, **longer})
    with pytest.raises(ZeroDivisionError):
        trained(corpus, config, tmp_path, resumed=True)
    clock.until = 10**9
    steps = trained(corpus, config, tmp_path, resumed=True).config.steps
    assert steps == pytest.approx(longer.get("steps", 2 * ended), abs=3)


def test_fewer_minutes_than_a_run_has_taken_are_refused(corpus, clock, tmp_path):
    trained(corpus, dataclasses.replace(TIMED, minutes=0.125), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"--minutes: 0\.125 -> 0\.1"):
        trained(corpus, dataclasses.replace(TIMED, minutes=0.1), tmp_path, resumed=True)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_fewer_steps_than_a_run_has_taken_are_refused(corpus, tmp_path):
    """Also by --inexact: the metrics of the others would be lost."""
    trained(corpus, dataclasses.replace(CONFIG, steps=9), tmp_path)
    before = metrics(tmp_path)
    fewer = dataclasses.replace(CONFIG, steps=5, inexact=True)
    with pytest.raises(InputError, match=r"step-00000009\.safetensors is past the end of a run of 5 steps"):
        trained(corpus, fewer, tmp_path, resumed=True)
    assert metrics(tmp_path) == before


def test_a_resumed_run_begins_at_the_rate_of_its_own_schedule(corpus, clock, tmp_path):
    """The first step of each part comes before the part's first estimate, here within the warm-up."""
    config = dataclasses.replace(TIMED, minutes=1.0, warmup=0.5, decay=0.5, checkpoint_every=10)
    clock.until = 115
    with pytest.raises(ZeroDivisionError):
        trained(corpus, config, tmp_path)
    clock.until = 10**9
    run = trained(corpus, config, tmp_path, resumed=True)
    assert run.config.steps == pytest.approx(480, abs=5)
    rates = [line["lr"] for line in metrics(tmp_path)]
    assert rates[105:125] == pytest.approx([config.lr * (step + 1) / 240 for step in range(105, 125)], rel=0.05)


def test_an_evaluation_of_a_run_that_turns_out_to_be_over(corpus, clock, tmp_path):
    """The time is used up after its first step."""
    config = dataclasses.replace(TIMED, minutes=0.001, eval=True, eval_share=0.2)
    run = trained(corpus, config, tmp_path)
    assert [each.step for each in run.history.records] == [each.step for each in run.history.evaluations] == [0]


def test_an_unfinished_run_keeps_its_length(corpus, clock, tmp_path):
    clock.until = 7
    with pytest.raises(ZeroDivisionError):
        trained(corpus, dataclasses.replace(CONFIG, steps=20, checkpoint_every=5), tmp_path)
    with pytest.raises(InputError, match="--steps: 20 -> 30"):
        trained(corpus, dataclasses.replace(CONFIG, steps=30), tmp_path, resumed=True)


@pytest.mark.parametrize("short_len", [0, 12])
def test_epochs(corpus, short_len):
    """The number of steps shows every example so often."""
    config = dataclasses.replace(CONFIG, epochs=2.0, short_len=short_len)
    run = trained(corpus, config)
    steps = run.config.steps
    assert len(run.history.records) == steps
    seen = sum(CONFIG.batch_size / Sampler(corpus, run.config.at(step)).num_examples for step in range(steps))
    assert seen == pytest.approx(2.0, abs=2 / steps)


def test_two_lengths():
    with pytest.raises(InputError, match="both say how long to train"):
        dataclasses.replace(CONFIG, minutes=1.0, epochs=1.0)
