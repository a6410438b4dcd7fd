"""What a masked-LM loss is measured against, and when a run is told that it doesn't learn."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from bertfast.config import TrainConfig
from bertfast.reporting.diagnosis import Diagnosis, contextless_loss, unigram_entropy
from bertfast.reporting.metrics import Record

# Losses of real runs: the notebook's model on the validation and test text of WikiText-2, and on the same text with its
# tokens shuffled; with each the run's settings, and what the two functions below say of the text.
CURVES = json.loads((Path(__file__).parent / "loss_curves.json").read_text())


def told(losses, config, entropy, contextless):
    """(step, message) of each time that the run is told something."""
    diagnosis = Diagnosis(entropy, contextless, config)
    records = [Record(step, loss, 0.7, config.lr) for step, loss in enumerate(losses)]
    messages = [(step, diagnosis.after(records[: step + 1])) for step in range(len(losses))]
    return [(step, message) for step, message in messages if message]


def replayed(name):
    curve = CURVES["runs"][name]
    return told(curve["losses"], TrainConfig(**curve["train"]), CURVES["entropy"], CURVES["contextless"])


def test_unigram_entropy():
    assert unigram_entropy(np.array([5, 5, 0, 5, 5])) == pytest.approx(math.log(4))


@pytest.mark.parametrize("shares", [(0.8, 0.1), (1.0, 0.0), (0.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.2, 0.3), (0.9, 0.0)])
def test_contextless_loss_is_the_entropy_of_the_label_given_what_stands_there(shares):
    """Against the table of all that can stand there and all that can be right."""
    mask_share, random_share = shares
    counts, specials = np.random.default_rng(0).integers(0, 50, 12), [0, 1, 5]
    counts[[0, 5]] = 0
    p = counts / counts.sum()
    drawn = [token for token in range(12) if token not in specials]
    joint = np.zeros((13, 12))  # row 12: [MASK]
    for label in range(12):
        joint[12, label] += mask_share * p[label]
        joint[label, label] += (1 - mask_share - random_share) * p[label]
        for token in drawn:
            joint[token, label] += random_share / len(drawn) * p[label]
    given = joint.sum(1, keepdims=True).repeat(12, 1)
    chosen = joint > 0
    expected = -(joint[chosen] * np.log(joint[chosen] / given[chosen])).sum()
    found = contextless_loss(counts, specials, mask_share, random_share)
    assert found == pytest.approx(expected, abs=1e-12)
    assert found <= unigram_entropy(counts) + 1e-12


@pytest.mark.parametrize("name", [name for name, curve in CURVES["runs"].items() if curve["learns"]])
def test_runs_that_learn_are_left_alone(name):
    assert replayed(name) == []


@pytest.mark.parametrize("name", [name for name, curve in CURVES["runs"].items() if not curve["learns"]])
def test_runs_that_do_not_learn_are_warned_once(name):
    ((step, message),) = replayed(name)
    curve = CURVES["runs"][name]
    assert step >= TrainConfig(**curve["train"]).warmup_steps + 20 - 1
    assert f"--lr (now {curve['train']['lr']:g})" in message
    assert "\n" not in message
    if name.startswith("shuffled"):
        assert (
            "no lower than the words' frequencies and the predicted words that are left visible bring it (5.65)"
            in message
        )
    else:
        assert "what the words' frequencies alone give (6.19, the corpus's unigram entropy)" in message
    assert ("the loss rose to" in message) == (curve["train"]["lr"] >= 5e-3)


CONFIG = TrainConfig(steps=1000, warmup=0.01)


def noise(count, spread=0.03):
    return np.random.default_rng(2).normal(0, spread, count)


def test_it_warns_soon_after_the_window_is_full():
    ((step, _),) = told((6.2 + noise(1000)).tolist(), CONFIG, 6.2, 5.7)
    assert 10 + 200 <= step + 1 <= 10 + 300  # a fifth of the run after the warm-up


def test_noise_does_not_hide_a_fall():
    falling = 6.2 - 0.6 * np.arange(1000) / 1000
    assert told((falling + noise(1000, 0.2)).tolist(), CONFIG, 6.2, 5.7) == []


def test_a_long_plateau_before_the_fall_is_waited_for():
    """As large models have, of which 2,000 steps after the warm-up are the most."""
    config = TrainConfig(steps=100_000, warmup=0.005)
    plateau = 6.2 + noise(2400)
    assert told(plateau.tolist(), config, 6.2, 5.7) == []
    ((step, _),) = told((6.2 + noise(3200)).tolist(), config, 6.2, 5.7)
    assert step + 1 >= 2500


@pytest.mark.parametrize("steps", [1, 3, 24])
def test_too_few_steps_say_nothing(steps):
    assert told([6.2] * steps, TrainConfig(steps=steps, warmup=0.2, decay=0.8), 6.2, 5.7) == []


def test_a_model_that_knows_more_is_left_alone():
    """Going on from a trained model, whose loss hardly falls any more."""
    assert told((2.1 + noise(1000)).tolist(), CONFIG, 6.2, 5.7) == []


def test_a_resumed_run_is_judged_by_what_it_has_seen():
    diagnosis = Diagnosis(6.2, 5.7, CONFIG)
    records = [Record(900 + step, loss, 0.7, 1e-3) for step, loss in enumerate((6.2 + noise(100)).tolist())]
    assert all(diagnosis.after(records[: step + 1]) is None for step in range(100))
