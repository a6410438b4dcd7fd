"""CUDA graphs: what the host has asked of the device once, and asks again by one call."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch


class Graphs:
    """Runs functions, each under a key, as CUDA graphs.

    The very first runs as it is, which also brings into being what may not be made under capture: libraries'
    workspaces, kernels. All others are captured when they first come, and replayed from then on; so is the first, when
    it comes again. With `each_first` every function runs as it is once, and is captured when it comes again.

    A function takes its input from tensors that stay where they are, leaves its result in such, and never asks the
    device for a number. All graphs share one pool of memory, in which nothing outlives a call. A block there is never
    given back and rarely large enough for a larger function: capture the largest first, and the others find room in
    its blocks. What runs as it is takes memory beside the pool, of its own.

    `close` before the process group is destroyed: NCCL's teardown waits until no graph holds a collective any more.
    """

    def __init__(self, device: torch.device, each_first: bool = False) -> None:
        self._device, self._each_first = device, each_first
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._ran: set[Hashable] = set()
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}

    def __call__(self, key: Hashable, function: Callable[[], object]) -> None:
        ready = key in self._ran if self._each_first else bool(self._ran)
        if not ready and key not in self._graphs:
            self._ran.add(key)
            self.run(function)
            return
        self.capture(key, function)
        with torch.cuda.device(self._device):
            self._graphs[key].replay()

    def capture(self, key: Hashable, function: Callable[[], object]) -> None:
        """Captures the function, unless it has been. Nothing of it happens on the device before a replay."""
        if key not in self._graphs:
            self._graphs[key] = self._captured(function)

    def run(self, function: Callable[[], object]) -> None:
        """Runs it as it is, in the stream of the captures, as what is prepared by it belongs to one."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            function()
        current.wait_stream(self._stream)

    def close(self) -> None:
        """Waits for the device, then frees all graphs.

        Each is reset, not only forgotten: the frames of an exception's traceback may still refer to it.
        """
        try:
            torch.cuda.synchronize(self._device)
        finally:
            for graph in self._graphs.values():
                graph.reset()
            self._graphs.clear()

    def _captured(self, function: Callable[[], object]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        try:
            # The outer context brings the caller's stream back where a capture fails: torch.cuda.graph does not.
            with torch.cuda.stream(self._stream), torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                function()
        except BaseException:
            graph.reset()  # what was captured up to here may hold a collective, and `close` does not know this graph
            raise
        return graph
