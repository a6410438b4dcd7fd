"""torch's own kernels in a deterministic run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.utils.deterministic

from bertfast.distributed.world import World


@contextlib.contextmanager
def deterministic_torch(world: World) -> Iterator[None]:
    """Where the run is deterministic, torch's own kernels are, too, until the end.

    On a CPU nothing differs from run to run, and asking makes torch import its compiler, which takes seconds.
    """
    if not world.deterministic or world.device.type == "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fills: Any = torch.utils.deterministic  # a module whose property mypy does not see
    filled = fills.fill_uninitialized_memory
    try:
        torch.use_deterministic_algorithms(True)
        # Else torch writes each tensor that it allocates once more, against reading what nobody wrote. No kernel does.
        fills.fill_uninitialized_memory = False
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        fills.fill_uninitialized_memory = filled
