"""Messages go to loggers below `bertfast`; here is how the commands show them.

A program that uses bertfast as a library sets these loggers up as it likes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Any

from tqdm import tqdm

from bertfast.torchrun import is_main_process


class StandardError:
    """Standard error as it is at each moment, for messages and progress bars. What it does not take is lost.

    A message is not worth a run: its reader may be gone, its disk full, the terminal closed.
    """

    encoding = "utf-8"

    def write(self, text: str) -> None:
        try:
            if sys.stderr is not None:
                sys.stderr.write(text)
                sys.stderr.flush()
        except (OSError, ValueError):
            # What is left in the buffer would fail again as the interpreter ends, and change its exit status.
            sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115

    def flush(self) -> None:
        """`write` has done it."""

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return sys.stderr is not None and sys.stderr.isatty()
        return False

    def fileno(self) -> int:
        return sys.stderr.fileno()


standard_error = StandardError()


class _Handler(logging.Handler):
    """A line a message, above a progress bar where there is one. Warnings and errors begin with their level."""

    def emit(self, record: logging.LogRecord) -> None:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        tqdm.write(f"{level}{record.getMessage()}", file=standard_error)


def show_messages(quiet: bool = False) -> None:
    """Shows the messages of the main process on standard error; with `quiet`, its warnings alone."""
    logger = logging.getLogger("bertfast")
    logger.handlers = [_Handler()]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    if not is_main_process():
        logger.setLevel(logging.CRITICAL)


def shows_progress() -> bool:
    """Whether this process reports progress: the main process does, unless it shows only warnings."""
    return is_main_process() and logging.getLogger("bertfast").level <= logging.INFO


def shows_bars() -> bool:
    """Whether it reports progress as bars, which only a terminal can show."""
    return shows_progress() and standard_error.isatty()


def progress_bar(*args: Any, disable: bool = False, **settings: Any) -> tqdm[Any]:
    """tqdm's bar with tqdm's arguments, on this process's standard error, drawn if `shows_bars`."""
    return tqdm(*args, **settings, file=standard_error, disable=disable or not shows_bars())
