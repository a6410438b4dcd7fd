"""A run's metrics as TensorBoard event files (the extra `tensorboard`)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from bertfast.errors import InputError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def require_tensorboard() -> None:
    """Raises InputError if the package is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("--tensorboard needs the package of that name: pip install tensorboard, or leave it out")


def event_writer(folder: Path, first_step: int) -> SummaryWriter:
    """A writer of event files. TensorBoard ignores what an earlier run wrote there for `first_step` and later steps."""
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and rarely needed

    return SummaryWriter(folder, purge_step=first_step)
