"""Sums have one order, whichever piece arrives first."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from bertfast.distributed.tree_sum import TreeSum, map_on_cores


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


def test_later_threads_use_as_many_threads_as_before(two_threads):
    with map_on_cores(torch.device("cpu")) as in_turn:
        assert list(in_turn(lambda _: torch.get_num_threads(), range(3))) == [1, 1, 1]
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == 2
