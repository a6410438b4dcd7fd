"""Threads of our own leave torch's number of threads as it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from bertfast.distributed.threads import map_on_cores


def test_later_threads_use_as_many_threads_as_before(two_threads):
    with map_on_cores(torch.device("cpu")) as in_turn:
        assert list(in_turn(lambda _: torch.get_num_threads(), range(3))) == [1, 1, 1]
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == 2
