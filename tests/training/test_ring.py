"""The ring of steps' metrics, which are read late: every step once, in order."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace

import pytest
import torch
from support.small_run import CPU

from bertfast.training.ring import MOST_STEPS, Ring


@pytest.mark.parametrize("first", [0, 5, MOST_STEPS, 3 * MOST_STEPS - 1])
@pytest.mark.parametrize("waits", [set(), {0}, {3, 4, MOST_STEPS - 1, MOST_STEPS, 2 * MOST_STEPS + 7}])
def test_every_step_once_in_order(first: int, waits: set[int]) -> None:
    ring, steps = Ring(2, first, CPU), 4 * MOST_STEPS + 3
    found = []
    for step in range(first, first + steps):
        ring.write(torch.tensor([step]), torch.tensor([float(step), -1.0]))
        last = step + 1 == first + steps
        read = ring.read(step, wait=step - first in waits or last)
        found += read
        if step - first in waits or last:
            assert found[-1][0] == step
        else:
            assert len(found) + 2 * MOST_STEPS > step - first
    assert found == [(step, [float(step), -1.0]) for step in range(first, first + steps)]


def test_non_finite_values_stay_non_finite() -> None:
    ring = Ring(1, 0, CPU)
    found = []
    for step, value in enumerate((1.0, math.nan, math.inf, 2.0)):
        ring.write(torch.tensor([step]), torch.tensor([value]))
        found += ring.read(step, wait=step == 3)
    assert [step for step, _ in found] == [0, 1, 2, 3]
    assert math.isnan(found[1][1][0])
    assert found[2][1] == [math.inf]


def test_the_copy_is_waited_for_on_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which need not be the current one. Here streams are named by their device, and the ring lies on the CPU."""
    done: list[object] = []
    event = SimpleNamespace(record=lambda *stream: done.append(stream), synchronize=lambda: done.append("waited"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: device)
    ring = Ring(1, 0, CPU)
    ring._copied = event  # type: ignore[assignment]
    ring.write(torch.tensor([0]), torch.tensor([1.0]))
    assert ring.read(0, wait=True) == [(0, [1.0])]
    assert done == ["waited", (CPU,), "waited"]


def test_fast_steps_are_read_seldom_and_slow_ones_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of our own: the readings come after 1, 2, 4 ... steps, or after each."""
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    for seconds, readings in ((0.001, [1, 2, 4, 8, 16, 32, 32]), (0.03, [1, 2, 4, 4, 4]), (0.3, [1, 1, 1])):
        ring, found = Ring(1, 0, CPU), []
        for step in range(sum(readings)):
            ring.write(torch.tensor([step]), torch.tensor([0.0]))
            now += seconds
            if rows := ring.read(step, wait=False):
                found.append(len(rows))
        assert found == readings[:-1]  # the last one's rows are taken by the next
