"""A run's metrics as TensorBoard event files (the extra `tensorboard`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from bertfast.errors import InputError


def require_tensorboard() -> None:
    """Raises InputError if the package is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("--tensorboard needs the package of that name: pip install tensorboard, or leave it out")


class EventFiles:
    """Writes a run's metrics into event files in `folder`.

    TensorBoard ignores what an earlier run wrote there for `first_step` and later steps.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and rarely needed

        self._writer = SummaryWriter(folder, purge_step=first_step)

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()
