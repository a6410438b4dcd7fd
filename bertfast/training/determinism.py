"""Makes torch's own kernels deterministic in a deterministic run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.utils.deterministic

from bertfast.distributed.world import World


@contextlib.contextmanager
def deterministic_torch(world: World) -> Iterator[None]:
    """In a deterministic run on a GPU, torch's own kernels are deterministic within the context.

    On a CPU they already are, and the setting makes torch import its compiler, which takes seconds.
    """
    if not world.deterministic or world.device.type == "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fills: Any = torch.utils.deterministic  # a module whose property mypy does not see
    filled = fills.fill_uninitialized_memory
    try:
        torch.use_deterministic_algorithms(True)
        # Otherwise torch fills each tensor that it allocates, in case a kernel reads uninitialized memory. None does.
        fills.fill_uninitialized_memory = False
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        fills.fill_uninitialized_memory = filled
