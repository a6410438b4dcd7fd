"""Stand-ins for CUDA graphs on a machine without a GPU."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import ClassVar

import pytest
import torch

from bertfast.distributed.cuda_graph import Graphs


class Called:
    """In the place of `Graphs`: every function is called."""

    def __call__(self, key: Hashable, function: Callable[[], object]) -> None:
        function()

    def run(self, function: Callable[[], object]) -> None:
        function()

    def capture(self, key: Hashable, function: Callable[[], object]) -> None:
        pass

    def close(self) -> None:
        pass


class HeldGraph:
    """In the place of torch.cuda.CUDAGraph: what it has captured is held until it is reset, or collected."""

    holding: ClassVar[weakref.WeakSet[HeldGraph]] = weakref.WeakSet()

    def __init__(self) -> None:
        self.function: Callable[[], object] = lambda: None

    def replay(self) -> None:
        assert self in self.holding
        self.function()

    def reset(self) -> None:
        self.holding.discard(self)


@contextlib.contextmanager
def _capture(graph: HeldGraph, pool: object, stream: object) -> Iterator[None]:
    HeldGraph.holding.add(graph)
    yield


class _Stream:
    def wait_stream(self, other: object) -> None:
        pass


def on_the_cpu(patch: pytest.MonkeyPatch) -> None:
    """Lets `Graphs` work on the CPU. A capture does not execute, so that the function is first called by a replay."""
    captured = Graphs._captured
    patch.setattr(HeldGraph, "holding", weakref.WeakSet())

    def capture(self: Graphs, function: Callable[[], object]) -> HeldGraph:
        graph = captured(self, lambda: None)
        graph.function = function
        return graph

    patch.setattr(Graphs, "_captured", capture)
    patch.setattr(torch.cuda, "CUDAGraph", HeldGraph)
    patch.setattr(torch.cuda, "graph", _capture)
    patch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    patch.setattr(torch.cuda, "synchronize", lambda device: None)
    patch.setattr(torch.cuda, "Stream", lambda device: _Stream())
    patch.setattr(torch.cuda, "current_stream", lambda device: _Stream())
    for name in ("device", "stream"):
        patch.setattr(torch.cuda, name, lambda of: contextlib.nullcontext())
