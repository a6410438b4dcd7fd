"""A batch in shards, summed in one fixed binary tree, whichever thread computes which shard.

A thread pool that adds results as they arrive, or a library that splits a sum over its threads, gives different bits on
different machines. Here exactly one thread computes each shard, always in the same shapes, and `a + b == b + a` bit for
bit, so the tree alone determines the sum. `collectives.RankSum` is the upper part of the tree, over processes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor

from bertfast.distributed.threads import thread_pool


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
