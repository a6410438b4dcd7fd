"""The learning rate: BERT's straight lines, the trapezoid, and runs of a few steps."""

import pytest
import torch
import transformers

from bertfast.config import TrainConfig
from bertfast.errors import InputError
from bertfast.training.schedule import learning_rate, learning_rates


def rates(**settings):
    config = TrainConfig(lr=1.0, **settings)
    return [learning_rate(step, config) for step in range(config.steps)]


def theirs(make, steps, **settings):
    """The rates of a schedule of transformers', whose first is 0: each is the rate after a step of ours."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = make(optimizer, num_training_steps=steps, **settings)
    found = []
    for _ in range(steps + 1):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def test_a_trapezoid():
    assert rates(steps=10, warmup=0.2, decay=0.4) == pytest.approx([1 / 2, 1, 1, 1, 1, 1, 1, 3 / 4, 2 / 4, 1 / 4])


@pytest.mark.parametrize(("steps", "warmup"), [(50, 0.1), (200, 0.05), (10, 0.4)])
def test_straight_lines_are_those_of_transformers(steps, warmup):
    """Ours rises from the first step on, where theirs loses it to a rate of 0; the fall is the same."""
    expected = theirs(transformers.get_linear_schedule_with_warmup, steps, num_warmup_steps=round(warmup * steps))
    ours = rates(steps=steps, warmup=warmup, decay=1 - warmup)
    rising = round(warmup * steps)
    assert ours[:rising] == pytest.approx(expected[1 : rising + 1])
    assert ours[rising:] == pytest.approx(expected[rising:-1])


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_a_few_steps_all_have_a_rate(steps):
    assert all(0 < rate <= 1 for rate in rates(steps=steps))
    assert rates(steps=1, warmup=0.0, decay=0.0) == [1.0]


def test_the_head_alone_has_a_schedule_of_its_own():
    """A run of the first steps, with its rate, and then one of the others, in which all have one rate."""
    shape = {"warmup": 0.2, "decay": 0.4}
    config = TrainConfig(steps=50, head_first=0.4, lr=0.01, head_lr=0.5, **shape)
    head, others = zip(*(learning_rates(step, config) for step in range(50)), strict=True)
    alone, together = ([rate * peak for rate in rates(steps=n, **shape)] for n, peak in ((20, 0.5), (30, 0.01)))
    assert head == pytest.approx(alone + together)
    assert others == pytest.approx([0.0] * 20 + together)
    assert [learning_rate(step, config) for step in range(50)] == list(head)


@pytest.mark.parametrize("shares", [(0.6, 0.5), (-0.1, 0.5), (0.1, 1.1), (5, 0.9)])
def test_invalid_shares(shares):
    with pytest.raises(InputError, match=r"--warmup .* and --decay .* must be shares of the run, together at most 1"):
        TrainConfig(warmup=shares[0], decay=shares[1])
