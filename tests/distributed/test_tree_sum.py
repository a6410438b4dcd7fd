"""Sums have one order, whichever piece arrives first."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from bertfast.distributed.tree_sum import TreeSum


@pytest.mark.parametrize("late", range(4))
def test_a_late_piece_takes_its_place_in_the_tree(late: int) -> None:
    """Two threads: one is held up in the late piece until the other has computed all the rest."""
    generator = torch.Generator().manual_seed(0)
    a, b, c, d = pieces = torch.randn(4, 1000, generator=generator) * torch.logspace(-3, 3, 4)[:, None]
    others = threading.Semaphore(0)

    def compute(number: int) -> list[Tensor]:
        if number == late:
            for _ in range(3):
                others.acquire()
        else:
            others.release()
        return [pieces[number].clone()]

    expected = (a + b) + (c + d)
    assert not torch.equal(expected, (a + c) + (b + d))
    assert not torch.equal(expected, (a + d) + (b + c))
    [total] = TreeSum(torch.device("cpu"), 2)(range(4), compute)
    assert torch.equal(total, expected)
