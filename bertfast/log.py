"""Messages go to loggers below `bertfast`; here is how the commands show them.

A program that uses bertfast as a library sets these loggers up as it likes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys

from tqdm import tqdm


class _StandardError(logging.Handler):
    """A line a message, above a progress bar where there is one. Warnings and errors begin with their level."""

    def emit(self, record: logging.LogRecord) -> None:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        # A message is not worth a run: whoever read standard error may be gone, or its disk full.
        with contextlib.suppress(OSError, ValueError):
            tqdm.write(f"{level}{record.getMessage()}", file=sys.stderr)


def show_messages(quiet: bool = False) -> None:
    """Shows the messages of the main process on standard error; with `quiet`, its warnings alone."""
    logger = logging.getLogger("bertfast")
    logger.handlers = [_StandardError()]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    if not is_main_process():
        logger.setLevel(logging.CRITICAL)


def shows_progress() -> bool:
    """Whether this process draws progress bars: the main process does, unless it shows warnings alone."""
    return is_main_process() and logging.getLogger("bertfast").level <= logging.INFO


def is_main_process() -> bool:
    """Whether this process speaks and writes for the run: rank 0, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0
