"""How the commands show messages, which go to loggers below `bertfast`.

A program that uses bertfast as a library configures these loggers itself.
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
    """The current `sys.stderr`, for messages and progress bars. Text that it can't take is dropped.

    A lost message must not end a run: its reader may be gone, its disk full, the terminal closed.
    """

    encoding = "utf-8"

    def write(self, text: str) -> None:
        try:
            if sys.stderr is not None:
                sys.stderr.write(text)
                sys.stderr.flush()
        except (OSError, ValueError):
            # The text left in the buffer would fail again when Python exits, and change the exit status.
            sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115

    def flush(self) -> None:
        """Does nothing: `write` flushes."""

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return sys.stderr is not None and sys.stderr.isatty()
        return False

    def fileno(self) -> int:
        return sys.stderr.fileno()


standard_error = StandardError()


class _Handler(logging.Handler):
    """Writes one line per message, above any progress bar. Warnings and errors begin with their level."""

    def emit(self, record: logging.LogRecord) -> None:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        tqdm.write(f"{level}{record.getMessage()}", file=standard_error)


def show_messages(quiet: bool = False) -> None:
    """Shows the main process's messages on standard error; with `quiet`, only its warnings."""
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
    """A tqdm bar, with tqdm's arguments, on standard error; drawn only if `shows_bars`."""
    return tqdm(*args, **settings, file=standard_error, disable=disable or not shows_bars())
