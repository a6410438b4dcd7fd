"""The learning rate of each step."""

from __future__ import annotations

import pytest

from bertfast.config import TrainConfig
from bertfast.training.schedule import learning_rate


def test_learning_rate():
    config = TrainConfig(steps=10, warmup=4, lr=1.0)
    rates = [learning_rate(step, config) for step in range(10)]
    assert rates == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert learning_rate(0, TrainConfig(steps=1, warmup=0, lr=1.0)) == 1
