"""Times of work on a device, warm and synchronised."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], device: str, calls: int = 1) -> float:
    """Seconds of one call, averaged over `calls` between two synchronisations."""
    wait_for(device)
    started = time.perf_counter()
    for _ in range(calls):
        work()
    wait_for(device)
    return (time.perf_counter() - started) / calls


def median_seconds(work: Callable[[], object], device: str, calls: int = 10, rounds: int = 5) -> float:
    seconds(work, device)
    return statistics.median(seconds(work, device, calls) for _ in range(rounds))


def captured(work: Callable[[], object]) -> Callable[[], object]:
    """`work` captured as a CUDA graph, so that its time is the device's and not the host's."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay
