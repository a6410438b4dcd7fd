"""A run's metrics as TensorBoard event files (the extra `tensorboard`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def event_writer(folder: Path, first_step: int) -> SummaryWriter:
    """A writer of event files. TensorBoard ignores earlier files' entries for `first_step` and later steps."""
    from torch.utils.tensorboard import SummaryWriter  # here, since importing it is slow

    return SummaryWriter(folder, purge_step=first_step)
