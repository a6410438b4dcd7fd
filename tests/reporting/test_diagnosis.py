"""When a diagnosis warns, what the warning says, and when there is none."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from bertfast.config import TrainConfig
from bertfast.reporting.context_free import ContextFree
from bertfast.reporting.diagnosis import Diagnosis, Subject
from bertfast.reporting.metrics import Evaluation, History, Record

# Losses of real runs: the notebook's model on the validation and test text of WikiText-2, and on the same text with its
# tokens shuffled. Each has the run's settings; both context-free losses on the text are beside.
CURVES = json.loads((Path(__file__).parent / "loss_curves.json").read_text())
SUBJECT = Subject(ContextFree(6.2, 5.7), ContextFree(6.3, 5.8), tokens=1_000_000, readings=5.0, weights=300_000)


def warnings(losses, config, subject=SUBJECT, evaluations=(), pace=0.0, first_step=0):
    """(step, message) of each warning in a run of `pace` seconds a step."""
    diagnosis, history = Diagnosis(subject, config), History()
    messages = []
    for step, loss in enumerate(losses, first_step):
        history.records.append(Record(step, loss, 0.7, config.lr))
        history.evaluations += [entry for entry in evaluations if entry.step == step]
        messages += [(step, message) for message in diagnosis.after(history, pace * (step - first_step + 1))]
    return messages


def evaluated(losses, steps, examples=1024):
    """Evaluations after equal parts of a run of `steps`, with these losses."""
    each = steps // len(losses)
    return [
        Evaluation((index + 1) * each - 1, loss, math.exp(loss), 0.1, eval_examples=examples)
        for index, loss in enumerate(losses)
    ]


def replayed(name):
    curve = CURVES["runs"][name]
    subject = SUBJECT._replace(held_out=None, training=ContextFree(CURVES["entropy"], CURVES["contextless"]))
    return warnings(curve["losses"], TrainConfig(**curve["train"]), subject)


LEARNING = [name for name, curve in CURVES["runs"].items() if curve["learns"]]


@pytest.mark.parametrize("name", LEARNING)
def test_no_warning_while_a_run_learns(name):
    """A run that ends above a context-free loss was too short: the end is the first time to say so."""
    curve = CURVES["runs"][name]
    messages = replayed(name)
    if name == "real text, 1500 steps of 64, rate 1e-3":  # it ends below 5.65
        assert messages == []
        return
    ((step, message),) = messages
    assert step + 1 == curve["train"]["steps"]
    assert message.startswith("the run ends with an MLM loss of 5.")
    assert "the words' frequencies, with the predicted words that no [MASK] hides, give 5.65" in message


@pytest.mark.parametrize("name", [name for name, curve in CURVES["runs"].items() if not curve["learns"]])
def test_one_warning_for_a_run_that_does_not_learn(name):
    ((step, message),) = replayed(name)
    curve = CURVES["runs"][name]
    assert step >= TrainConfig(**curve["train"]).warmup_steps + 20 - 1
    assert f"--lr (now {curve['train']['lr']:g})" in message
    assert "\n" not in message
    if name.startswith("shuffled"):
        assert "the words' frequencies, with the predicted words that no [MASK] hides, give 5.65" in message
    else:
        assert "the words' frequencies alone give 6.19" in message
    assert ("the loss rose to" in message) == (curve["train"]["lr"] >= 5e-3)


CONFIG = TrainConfig(steps=1000, warmup=0.01)


def noise(count, spread=0.03):
    return np.random.default_rng(2).normal(0, spread, count)


def test_the_warning_comes_soon_after_the_window_is_full():
    ((step, _),) = warnings((6.2 + noise(1000)).tolist(), CONFIG)
    assert 10 + 200 <= step + 1 <= 10 + 300  # a fifth of the run after the warm-up


def test_the_steps_of_the_head_alone_are_not_judged():
    """The head alone learns little from context; the window begins after the warm-up of all parameters."""
    config = dataclasses.replace(CONFIG, head_first=0.4)
    assert warnings((6.2 + noise(600)).tolist(), config) == []
    ((step, _),) = warnings((6.2 + noise(1000)).tolist(), config)
    assert 400 + 6 + 200 <= step + 1 <= 400 + 6 + 300


def test_noise_does_not_hide_a_fall():
    falling = 6.2 - 0.6 * np.arange(1000) / 1000
    assert warnings((falling + noise(1000, 0.2)).tolist(), CONFIG) == []


def test_no_warning_on_a_plateau_of_the_window():
    """Large models have plateaus; the window is at most 2,000 steps after the warm-up."""
    config = TrainConfig(steps=100_000, warmup=0.005)
    plateau = 6.2 + noise(2400)
    assert warnings(plateau.tolist(), config) == []
    ((step, _),) = warnings((6.2 + noise(3200)).tolist(), config)
    assert step + 1 >= 2500


@pytest.mark.parametrize("steps", [1, 3, 24])
def test_no_warning_in_a_very_short_run(steps):
    assert warnings([6.2] * steps, TrainConfig(steps=steps, warmup=0.2, decay=0.8)) == []


def test_no_warning_for_a_trained_model():
    """Its loss is low, though it hardly falls."""
    assert warnings((2.1 + noise(1000)).tolist(), CONFIG) == []


def test_a_resumed_run_is_judged_by_its_loaded_steps():
    losses = (6.2 + noise(100)).tolist()
    assert warnings(losses[:-1], CONFIG, first_step=900) == []
    ((step, message),) = warnings(losses, CONFIG, first_step=900)
    assert step == 999
    assert message.startswith("the run ends with an MLM loss of 6.2")


# --- by time


LONG = TrainConfig(steps=20_000, warmup=0.005)


@pytest.mark.parametrize(("pace", "by"), [(0.0, 100 + 2000), (1.0, 100 + 600), (2.0, 100 + 300), (60.0, 100 + 20)])
def test_a_slow_run_is_judged_after_ten_minutes(pace, by):
    """Or after a tenth of its steps, if that is sooner; but after at least 20 steps since the warm-up."""
    messages = [each for each in warnings((6.2 + noise(3000)).tolist(), LONG, pace=pace) if "so far" in each[1]]
    ((step, _),) = messages
    assert by <= step + 1 <= by * 1.3


def test_no_warning_for_a_slow_run_that_learns():
    """It falls by 0.3 nats in 600 steps of a second each."""
    assert warnings((6.2 - np.arange(3000) / 2000 + noise(3000, 0.1)).tolist(), LONG, pace=1.0) == []


def test_a_run_of_days_is_announced_after_its_first_steps():
    ((step, message),) = warnings([6.2] * 8, LONG, pace=45.0)
    assert step == 3
    assert message.startswith("a step takes 45 s, so the 19,996 steps that are left take 10.4 days.")
    assert "(now 512)" in message


def test_a_slow_first_step_is_not_a_slow_run():
    """The first step compiles, as do a few later ones."""
    diagnosis, history = Diagnosis(SUBJECT, LONG), History()
    seconds = 0.0
    for step in range(50):
        seconds += 100.0 if step in (0, 7, 20, 21) else 4.0  # 4 s a step: 22 hours
        history.records.append(Record(step, 6.2, 0.7, 1e-3))
        assert diagnosis.after(history, seconds) == []


def test_steps_that_are_read_late_have_the_right_pace():
    """A captured run reads the results of several steps at a time."""
    diagnosis, history = Diagnosis(SUBJECT, dataclasses.replace(LONG, steps=10_000_000)), History()
    for step in range(200):
        if step % 8 == 7:
            history.records += [Record(each, 6.2, 0.7, 1e-3) for each in range(step - 7, step + 1)]
        assert diagnosis.after(history, 0.008 * step) == []  # 22 hours


# --- on held-out text

SHORT = TrainConfig(steps=60, batch_size=64, warmup=0.05, decay=0.9)
FLAT = 6.2 + 0.1 * np.random.default_rng(5).standard_normal(60)  # noise would hide a small fall


def test_a_falling_held_out_loss_prevents_the_warning():
    """But when the run ends, a warning says that it was too short."""
    evaluations = evaluated([6.40, 6.33, 6.27], 60)
    without = SUBJECT._replace(held_out=None)
    assert any("nothing is learned" in message for _, message in warnings(FLAT.tolist(), SHORT, without))
    ((step, message),) = warnings(FLAT.tolist(), SHORT, evaluations=evaluations)
    assert step == 59
    assert message.startswith(
        "the run ends with an MLM loss of 6.27 on held-out text, and the words' frequencies alone"
    )
    assert "longer training (--steps, now 60): the loss was still falling" in message


def test_a_constant_held_out_loss_does_not_prevent_the_warning():
    evaluations = evaluated([6.30, 6.29, 6.28], 60)
    assert any(
        "nothing is learned" in message for _, message in warnings(FLAT.tolist(), SHORT, evaluations=evaluations)
    )


def test_the_held_out_loss_decides_at_the_end():
    """It is compared with the context-free losses on held-out text, which are higher than on the corpus."""
    losses = (6.2 - 0.45 * np.arange(60) / 60 + noise(60)).tolist()  # ends at 5.75, above 5.7
    assert len(warnings(losses, SHORT)) == 1
    last = evaluated([5.75], 60)
    assert warnings(losses, SHORT, evaluations=last) == []
    last = evaluated([5.95], 60)
    assert "5.95 on held-out text, and the words' frequencies, with" in warnings(losses, SHORT, evaluations=last)[0][1]
    last = evaluated([5.95], 60, examples=1)  # too few to tell
    assert warnings(losses, SHORT, evaluations=last) == []


def overfitting(rise, fall=1.0, readings=30.0, final=None):
    """A run of 1,000 steps whose held-out loss is lowest after 400."""
    losses = (5.0 - fall * np.arange(1000) / 1000 + noise(1000)).tolist()
    held_out = [5.2, 5.0, 4.9, 4.8, *(4.8 + rise * tenth for tenth in range(1, 6))]
    evaluations = [
        Evaluation(100 * (index + 1) - 1, loss, math.exp(loss), 0.1, eval_examples=512)
        for index, loss in enumerate(held_out)
    ]
    if final is not None:
        evaluations.append(Evaluation(999, final, math.exp(final), 0.1, eval_examples=1024))
    return warnings(losses, CONFIG, SUBJECT._replace(readings=readings), evaluations)


def test_one_warning_for_overfitting():
    ((step, message),) = overfitting(rise=0.05)
    assert step == 599  # the second evaluation in a row that is 1% higher
    assert message.startswith(
        "the held-out MLM loss rose from 4.80 (after step 400) to 4.90 while the training loss fell: the model learns "
        "the text by heart, which it has read 18.0 times."
    )
    assert "--steps (400 were enough)" in message


def test_no_warning_without_overfitting():
    assert overfitting(rise=0.004) == []
    assert overfitting(rise=-0.05) == []
    assert overfitting(rise=0.05, fall=-0.1) == []  # both losses rise
    assert overfitting(rise=0.01, final=5.2) == []  # other examples


def test_a_different_held_out_text_is_not_overfitting():
    ((_, message),) = overfitting(rise=0.05, readings=0.5)
    assert "by heart" not in message
    assert message.endswith("text to evaluate on that is more like the --corpus, or the other way round")


# --- before the first step


def before(**changes):
    return Diagnosis(SUBJECT._replace(**changes), CONFIG).before()


def test_a_text_that_is_read_too_often():
    assert before(readings=40.0) == []
    (message,) = before(readings=120.4, held_out=None)
    assert message.startswith("the run reads its 1,000,000 tokens 120 times: after some 40 times")
    assert "fewer --steps (now 1,000)" in message
    assert "--eval" in message
    assert "--eval" not in before(readings=120.4)[0]


def test_a_model_that_is_too_large_for_its_text():
    assert before(weights=10_000_000) == []
    (message,) = before(weights=85_000_000)
    assert message.startswith("the model's layers have 85,000,000 weights, the text 1,000,000 tokens: too few")
    assert "--init" in message
