"""How many threads torch uses for a call, and threads of our own for each of which it uses one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from bertfast._native import native


def set_threads(count: int) -> None:
    """torch and our kernels use so many threads for this thread's calls. With OpenMP they share one number."""
    torch.set_num_threads(count)
    native.set_threads(count)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """torch uses one thread for this thread's calls, so that sums have the same order on any number of cores."""
    with threads_restored():
        set_threads(1)
        yield


def thread_pool(device: torch.device, threads: int) -> ThreadPoolExecutor | None:
    """On a CPU, threads for each of which torch uses one thread; None on a GPU, which one thread drives.

    torch then uses one thread for all later threads too, until `threads_restored` ends.
    """
    if device.type != "cpu":
        return None
    return ThreadPoolExecutor(threads, "bertfast", set_threads, (1,))


@contextlib.contextmanager
def threads_restored() -> Iterator[None]:
    """At its end, torch uses as many threads as before, in this thread and in later ones."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        set_threads(before)


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
