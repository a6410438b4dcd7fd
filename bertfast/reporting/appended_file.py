"""A file of lines that a run appends to, and truncates when it is resumed."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)


class AppendedFile:
    """Appends lines to a file. Lines that can't be written are kept in memory and written later."""

    def __init__(self, path: Path | None) -> None:
        """`path`: an existing file, or None to drop every line."""
        self._path, self._size = path, 0 if path is None else path.stat().st_size
        self._unwritten = b""

    def add(self, line: bytes) -> None:
        """Appends a line, which ends in a line feed. Warns if it can't be written, once for consecutive failures."""
        if self._path is None:
            return
        failing = self._unwritten != b""
        self._unwritten += line
        try:
            self.write()
        except OSError as error:
            if not failing:
                logger.warning(
                    "%s can't be written: %s; the lines are kept and written later", self._path, error.strerror
                )

    def write(self) -> None:
        """Writes the lines that are not in the file yet, after earlier writes failed. Raises OSError."""
        if self._path is None or not self._unwritten:
            return
        try:
            with self._path.open("ab") as file:
                file.write(self._unwritten)
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(self._path, self._size)  # no half line
            raise
        self._size += len(self._unwritten)
        self._unwritten = b""


def cut_back(path: Path, step: int, step_of: Callable[[bytes], int | None]) -> bytes:
    """Truncates a file to its `lines_before` the step, and returns them; creates a missing file."""
    path.touch()
    lines = lines_before(path, step, step_of)
    os.truncate(path, len(lines))
    return lines


def lines_before(path: Path, step: int, step_of: Callable[[bytes], int | None]) -> bytes:
    """The file's lines up to the last one of a step before `step`; none of a missing file.

    `step_of` returns a line's step, or None for an invalid line: a crash can leave part of one.
    """
    content = path.read_bytes() if path.exists() else b""
    end = content.rfind(b"\n") + 1
    while end:
        begin = content.rfind(b"\n", 0, end - 1) + 1
        line_step = step_of(content[begin:end])
        if line_step is not None and line_step < step:
            break
        end = begin
    return content[:end]
