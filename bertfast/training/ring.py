"""A ring buffer of step metrics on the device, which the host reads late, so that neither waits for the other."""

from __future__ import annotations

import time

import torch
from torch import Tensor

MOST_STEPS = 32
"""The number of rows, and so the most steps between two reads."""

_SECONDS = 0.1


class Ring:
    """A row of `columns` float32 for each step, the latest `MOST_STEPS` of them.

    A read starts an asynchronous copy of the rows after the last queued step, and returns the previous copy. So the
    host is at most two reads ahead of the device, and a signal waits only for those steps. At first there is a read
    after each step; the interval doubles, up to `most_steps`, each time that two reads come within a tenth of a second.
    """

    def __init__(self, columns: int, first_step: int, device: torch.device, most_steps: int = MOST_STEPS) -> None:
        self._rows = torch.zeros(MOST_STEPS, columns, dtype=torch.float32, device=device)
        self._copy = torch.zeros_like(self._rows, device="cpu", pin_memory=device.type == "cuda")
        self._copied = torch.cuda.Event() if device.type == "cuda" else None
        self._in_copy = range(first_step, first_step)
        self._period, self._most_steps, self._read_at = 1, most_steps, time.perf_counter()

    def write(self, step: Tensor, row: Tensor) -> None:
        """On the device: stores `row` (columns,) for `step` (1,) int64."""
        self._rows.index_copy_(0, step % MOST_STEPS, row[None])

    def read(self, step: int, wait: bool) -> list[tuple[int, list[float]]]:
        """On the host, after each `step`: (step, row) pairs in order, each step once.

        With `wait`, all steps up to `step`.
        """
        if not wait and step + 1 - self._in_copy.stop < self._period:
            return []
        rows = self._collect()
        self._copy.copy_(self._rows, non_blocking=True)
        if self._copied is not None:
            # On the stream of the rows' device, which need not be the current device.
            self._copied.record(torch.cuda.current_stream(self._rows.device))
        self._in_copy = range(self._in_copy.stop, step + 1)
        before, self._read_at = self._read_at, time.perf_counter()
        if self._read_at - before < _SECONDS:
            self._period = min(2 * self._period, self._most_steps)
        return rows + self._collect() if wait else rows

    def _collect(self) -> list[tuple[int, list[float]]]:
        if self._copied is not None:
            self._copied.synchronize()
        rows = [(step, self._copy[step % MOST_STEPS].tolist()) for step in self._in_copy]
        self._in_copy = range(self._in_copy.stop, self._in_copy.stop)
        return rows
