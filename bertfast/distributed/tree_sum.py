"""A batch in shards: pieces computed as units and summed in one binary tree, whoever computes which.

What a thread pool adds up in the order of arrival, or a library in as many parts as it has threads, has other bits on
other machines. Here each piece is computed by exactly one thread, in the same shapes wherever that is, and
`a + b == b + a` bit for bit, so that the tree alone decides the sum.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """In it, what this thread calls computes with one thread: sums of one order on any number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def thread_pool(device: torch.device, threads: int) -> ThreadPoolExecutor | None:
    """On a CPU, threads that compute with one thread each; on a GPU, which is one thread's to feed, none."""
    if device.type != "cpu":
        return None
    return ThreadPoolExecutor(threads, "shard", torch.set_num_threads, (1,))


class TreeSum:
    """Sums of `compute(i)`, lists of tensors, over consecutive numbers i, in one binary tree.

    On a CPU `threads` of them are computed at a time, each by one thread; on a GPU one after another.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        self._pool = thread_pool(device, threads)

    def __call__(self, numbers: range, compute: Callable[[int], list[Tensor]]) -> list[Tensor]:
        """The sum over `numbers`, whose length is a power of two. It may share memory with what `compute` returned."""
        waiting: dict[tuple[int, int], list[Tensor]] = {}  # sums whose sibling in the tree isn't there yet
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
