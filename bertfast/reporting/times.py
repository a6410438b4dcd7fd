"""times.jsonl: when each step of a run ended.

Times differ from run to run, so they are not in metrics.jsonl: a resumed run's metrics.jsonl equals that of an
uninterrupted run, byte for byte.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from bertfast.reporting.appended_file import AppendedFile, cut_back


class Times:
    """A line for each step: the seconds of training until its metrics were known, over all parts of a resumed run.

    They include evaluations and the wait for checkpoints, but not the setup or the time between a run's parts.
    """

    def __init__(self, path: Path | None = None, first_step: int = 0) -> None:
        """Continues after the file's lines before `first_step`; drops the others. Without `path`, writes no file."""
        lines = b"" if path is None else cut_back(path, first_step, _step)
        last = _time(lines[lines.rfind(b"\n", 0, -1) + 1 :])
        self.before = 0.0 if last is None else last[1]
        self._file = AppendedFile(path)

    def add(self, step: int, seconds: float) -> None:
        """Adds a step that ended `seconds` after this part of the run began."""
        self._file.add(json.dumps({"step": step, "seconds": round(self.before + seconds, 3)}).encode() + b"\n")

    def write(self) -> None:
        """Writes the lines that are not in the file yet, after earlier writes failed. Raises OSError."""
        self._file.write()


def _step(line: bytes) -> int | None:
    return None if (time := _time(line)) is None else time[0]


def _time(line: bytes) -> tuple[int, float] | None:
    """Parses a line; None if it is not valid."""
    try:
        entry = json.loads(line)
        step, seconds = int(entry["step"]), float(entry["seconds"])
        return (step, seconds) if math.isfinite(seconds) else None
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None
