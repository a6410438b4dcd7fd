"""What bertfast logs, as the commands would show it."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class _Listener(logging.Handler):
    def __init__(self, hear: Callable[[str], object]) -> None:
        super().__init__()
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        self._hear(level + record.getMessage())


@contextlib.contextmanager
def listening(hear: Callable[[str], object]) -> Iterator[None]:
    """Calls `hear` with each message, in the thread that logs it."""
    logger, listener = logging.getLogger("bertfast"), _Listener(hear)
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
