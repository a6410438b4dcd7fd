"""What each step measures, kept on the device until the host comes for it, so that neither waits for the other."""

from __future__ import annotations

import torch
from torch import Tensor

PERIOD = 32
"""Steps between two readings."""


class Ring:
    """A row of `columns` float32 for each step, the latest `PERIOD` of them.

    Every `PERIOD` steps the rows are copied, behind the last step in the device's queue; the host takes the copy when
    the next is due. So it runs at most two periods ahead of the device.
    """

    def __init__(self, columns: int, first_step: int, device: torch.device) -> None:
        self._rows = torch.zeros(PERIOD, columns, device=device)
        self._copy = torch.zeros(PERIOD, columns, pin_memory=device.type == "cuda")
        self._copied = torch.cuda.Event() if device.type == "cuda" else None
        self._in_copy = range(first_step, first_step)

    def write(self, step: Tensor, row: Tensor) -> None:
        """On the device: `row` (columns,) is that of `step` (1,) int64."""
        self._rows.index_copy_(0, step % PERIOD, row[None])

    def read(self, step: int, wait: bool) -> list[tuple[int, list[float]]]:
        """On the host, after each `step`: the numbers and rows of steps, in order, each once.

        With `wait`, all up to `step`.
        """
        if not wait and (step + 1) % PERIOD:
            return []
        taken = self._take()
        self._copy.copy_(self._rows, non_blocking=True)
        if self._copied is not None:
            self._copied.record()
        self._in_copy = range(self._in_copy.stop, step + 1)
        return taken + self._take() if wait else taken

    def _take(self) -> list[tuple[int, list[float]]]:
        if self._copied is not None:
            self._copied.synchronize()
        taken = [(step, self._copy[step % PERIOD].tolist()) for step in self._in_copy]
        self._in_copy = range(self._in_copy.stop, self._in_copy.stop)
        return taken
