"""What each step measures, kept on the device until the host comes for it, so that neither waits for the other."""

from __future__ import annotations

import time

import torch
from torch import Tensor

MOST_STEPS = 32
"""Between two readings; so many rows the ring has."""

_SECONDS = 0.1


class Ring:
    """A row of `columns` float32 for each step, the latest `MOST_STEPS` of them.

    At times the rows are copied, behind the last step in the device's queue; the host takes the copy when the next is
    due. So it runs at most two readings ahead of the device, and a signal has it wait no longer than for these steps.
    There is a reading after each step at first, and then after twice as many each time that one came within a tenth of
    a second, up to `most_steps`.
    """

    def __init__(self, columns: int, first_step: int, device: torch.device, most_steps: int = MOST_STEPS) -> None:
        self._rows = torch.zeros(MOST_STEPS, columns, dtype=torch.float32, device=device)
        self._copy = torch.zeros_like(self._rows, device="cpu", pin_memory=device.type == "cuda")
        self._copied = torch.cuda.Event() if device.type == "cuda" else None
        self._in_copy = range(first_step, first_step)
        self._period, self._most_steps, self._read_at = 1, most_steps, time.perf_counter()

    def write(self, step: Tensor, row: Tensor) -> None:
        """On the device: `row` (columns,) is that of `step` (1,) int64."""
        self._rows.index_copy_(0, step % MOST_STEPS, row[None])

    def read(self, step: int, wait: bool) -> list[tuple[int, list[float]]]:
        """On the host, after each `step`: the numbers and rows of steps, in order, each once.

        With `wait`, all up to `step`.
        """
        if not wait and step + 1 - self._in_copy.stop < self._period:
            return []
        taken = self._take()
        self._copy.copy_(self._rows, non_blocking=True)
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self._rows.device))  # not the current device's
        self._in_copy = range(self._in_copy.stop, step + 1)
        before, self._read_at = self._read_at, time.perf_counter()
        if self._read_at - before < _SECONDS:
            self._period = min(2 * self._period, self._most_steps)
        return taken + self._take() if wait else taken

    def _take(self) -> list[tuple[int, list[float]]]:
        if self._copied is not None:
            self._copied.synchronize()
        taken = [(step, self._copy[step % MOST_STEPS].tolist()) for step in self._in_copy]
        self._in_copy = range(self._in_copy.stop, self._in_copy.stop)
        return taken
