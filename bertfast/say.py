"""Lines for who started a run, and which of its processes says them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from tqdm import tqdm

Say = Callable[[str], object]


def say_to_stderr(line: str) -> None:
    """Above a progress bar, where there is one."""
    tqdm.write(line, file=sys.stderr)


def keep_silent(line: str) -> None:
    """A `Say` for processes that don't speak for the run."""


def leads() -> bool:
    """Whether this process speaks for the run: rank 0, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0
