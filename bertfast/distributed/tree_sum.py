"""A batch in shards, summed in one fixed binary tree, whichever thread or process computes which shard.

A thread pool that adds results as they arrive, or a library that splits a sum over its threads, gives different bits on
different machines. Here exactly one thread computes each shard, always in the same shapes, and `a + b == b + a` bit for
bit, so the tree alone determines the sum.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """torch uses one thread for this thread's calls, so that sums have the same order on any number of cores."""
    with threads_restored():
        torch.set_num_threads(1)
        yield


def thread_pool(device: torch.device, threads: int) -> ThreadPoolExecutor | None:
    """On a CPU, threads for each of which torch uses one thread; None on a GPU, which one thread drives.

    torch then uses one thread for all later threads too, until `threads_restored` ends.
    """
    if device.type != "cpu":
        return None
    return ThreadPoolExecutor(threads, "bertfast", torch.set_num_threads, (1,))


@contextlib.contextmanager
def threads_restored() -> Iterator[None]:
    """At its end, torch uses as many threads as before, in this thread and in later ones."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def map_on_cores(device: torch.device) -> Iterator[Callable[..., Iterator[Any]]]:
    """`map`, whose calls are made on a CPU by as many threads as torch uses, each on one core."""
    with threads_restored():
        pool = thread_pool(device, torch.get_num_threads())
        if pool is None:
            yield map
            return
        try:
            yield pool.map
        finally:
            pool.shutdown(cancel_futures=True)


class TreeSum:
    """Sums of `compute(i)`, lists of tensors, over consecutive numbers i, in one binary tree.

    On a CPU, `threads` threads compute one number each at a time; on a GPU, one number follows another.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        self._pool = thread_pool(device, threads)

    def __call__(self, numbers: range, compute: Callable[[int], list[Tensor]]) -> list[Tensor]:
        """The sum over `numbers`, whose length is a power of two. It may share memory with what `compute` returned."""
        waiting: dict[tuple[int, int], list[Tensor]] = {}  # sums whose sibling in the tree isn't ready yet
        lock = threading.Lock()

        def add(place: int) -> None:
            total = compute(numbers[place])
            leaves = 1
            while leaves < len(numbers):
                node = place // leaves
                with lock:
                    sibling = waiting.pop((leaves, node ^ 1), None)
                    if sibling is None:
                        waiting[leaves, node] = total
                        return
                for mine, other in zip(total, sibling, strict=True):
                    mine.add_(other)
                del sibling
                leaves *= 2
            waiting[leaves, 0] = total

        places = range(len(numbers))
        for _ in map(add, places) if self._pool is None else self._pool.map(add, places):
            pass
        return waiting[len(numbers), 0]
