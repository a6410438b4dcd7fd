"""CUDA graphs: work that the host launches once kernel by kernel, and then replays with one call."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch


class Graphs:
    """Runs functions, each under a key, as CUDA graphs.

    The very first function runs uncaptured, which also creates what can't be created during a capture: libraries'
    workspaces, kernels. Every other function is captured at its first call and replayed from then on; so is the first
    function at its second call. With `each_first`, every function runs uncaptured once and is captured at its second
    call.

    A function reads its input from tensors that don't move, writes its result into such tensors, and never reads a
    value back from the device. All graphs share one memory pool, in which nothing outlives a call. The pool never frees
    a block, and a block is rarely large enough for a larger function: capture the largest first, and the others fit
    into its blocks. Uncaptured runs use memory outside the pool.

    Call `close` before the process group is destroyed: NCCL's teardown waits while any graph still holds a collective.
    """

    def __init__(self, device: torch.device, each_first: bool = False) -> None:
        self._device, self._each_first = device, each_first
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._ran: set[Hashable] = set()
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}

    def __call__(self, key: Hashable, function: Callable[[], object]) -> None:
        ready = key in self._ran if self._each_first else bool(self._ran)
        if not ready:
            self._ran.add(key)
            self.run(function)
            return
        self.capture(key, function)
        with torch.cuda.device(self._device):
            self._graphs[key].replay()

    def capture(self, key: Hashable, function: Callable[[], object]) -> None:
        """Captures the function, unless it already is. The device executes nothing until a replay."""
        if key not in self._graphs:
            self._graphs[key] = self._captured(function)

    def run(self, function: Callable[[], object]) -> None:
        """Runs the function uncaptured, on the capture stream: what it initializes is bound to a stream."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            function()
        current.wait_stream(self._stream)

    def close(self) -> None:
        """Waits for the device, then frees all graphs.

        Each graph is reset, not only dropped: an exception's traceback may still reference it.
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
            # The outer context restores the caller's stream if a capture fails: torch.cuda.graph does not.
            with torch.cuda.stream(self._stream), torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                function()
        except BaseException:
            graph.reset()  # the partial capture may hold a collective, and `close` does not know this graph
            raise
        return graph
