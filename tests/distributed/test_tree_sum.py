"""Sums in one order, whichever piece is there first."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from bertfast.distributed.tree_sum import TreeSum

# Of which each order of adding has another sum in float32.
PIECES = [1e8, 3.0, -1e8, 5.0]


@pytest.mark.parametrize("late", range(4))
def test_a_late_piece_takes_its_place_in_the_tree(late: int) -> None:
    """Two threads: one is held up in the late piece until the other has computed all the rest."""
    others = threading.Semaphore(0)

    def compute(number: int) -> list[Tensor]:
        if number == late:
            for _ in range(3):
                others.acquire()
        else:
            others.release()
        return [torch.tensor(PIECES[number])]

    pieces = [torch.tensor(piece) for piece in PIECES]
    expected = (pieces[0] + pieces[1]) + (pieces[2] + pieces[3])
    [total] = TreeSum(torch.device("cpu"), 2)(range(4), compute)
    assert torch.equal(total, expected)
