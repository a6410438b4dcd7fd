"""What steps measured, read a period late: every step once, in order."""

from __future__ import annotations

import math

import pytest
import torch

from bertfast.ring import PERIOD, Ring

CPU = torch.device("cpu")


@pytest.mark.parametrize("first", [0, 5, PERIOD, 3 * PERIOD - 1])
@pytest.mark.parametrize("waits", [set(), {0}, {3, 4, PERIOD - 1, PERIOD, 2 * PERIOD + 7}])
def test_every_step_once_in_order(first: int, waits: set[int]) -> None:
    ring, steps = Ring(2, first, CPU), 4 * PERIOD + 3
    found = []
    for step in range(first, first + steps):
        ring.write(torch.tensor([step]), torch.tensor([float(step), -1.0]))
        last = step + 1 == first + steps
        read = ring.read(step, wait=step - first in waits or last)
        found += read
        if step - first in waits or last:
            assert found[-1][0] == step
        else:
            assert len(found) + 2 * PERIOD > step - first
    assert found == [(step, [float(step), -1.0]) for step in range(first, first + steps)]


def test_what_is_no_number_stays_none() -> None:
    ring = Ring(1, 0, CPU)
    for step, value in enumerate((1.0, math.nan, math.inf)):
        ring.write(torch.tensor([step]), torch.tensor([value]))
        assert ring.read(step, wait=False) == []
    ring.write(torch.tensor([3]), torch.tensor([2.0]))
    (one, _), (two, (nothing,)), (three, (endless,)), (four, _) = ring.read(3, wait=True)
    assert (one, two, three, four) == (0, 1, 2, 3)
    assert math.isnan(nothing)
    assert endless == math.inf
