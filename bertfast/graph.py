"""CUDA graphs: what the host has asked of the device once, and asks again by one call."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch


class Graphs:
    """Runs functions, each under a key, as CUDA graphs.

    The first time a function is run as it is, which also brings into being what may not be made under capture:
    libraries' workspaces, the optimizer's state. What comes back a second time is captured, and replayed from then on.
    A function takes its input from tensors that stay where they are, leaves its result in such, and never asks the
    device for a number. All graphs share one pool of memory, so that nothing in it outlives a call.

    `close` before the process group is destroyed: NCCL's teardown waits until no graph holds a collective any more.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph | None] = {}

    def __call__(self, key: Hashable, function: Callable[[], object]) -> None:
        if key not in self._graphs:
            self._graphs[key] = None
            self._run(function)
            return
        graph = self._graphs[key]
        if graph is None:
            graph = self._graphs[key] = self._captured(function)
        with torch.cuda.device(self._device):
            graph.replay()

    def close(self) -> None:
        """Waits for the device, then frees all graphs.

        Each is reset, not only forgotten: the frames of an exception's traceback may still refer to it.
        """
        try:
            torch.cuda.synchronize(self._device)
        finally:
            for graph in self._graphs.values():
                if graph is not None:
                    graph.reset()
            self._graphs.clear()

    def _run(self, function: Callable[[], object]) -> None:
        """In the stream of the captures, as what is prepared by it belongs to one."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            function()
        current.wait_stream(self._stream)

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
