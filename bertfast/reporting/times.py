"""times.jsonl: when each step of a run ended.

Times differ from run to run, so they are not in metrics.jsonl: a resumed run's metrics.jsonl equals that of an
uninterrupted run, byte for byte.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from bertfast.reporting.appended_file import AppendedFile, cut_back, lines_before


class Times:
    """A line for each step: the seconds of training until its metrics were known, over all parts of a resumed run.

    They include evaluations and the wait for checkpoints, but not the setup or the time between a run's parts.
    """

    def __init__(self, path: Path | None = None, first_step: int = 0) -> None:
        """Continues after the file's lines before `first_step`; drops the others. Without `path`, writes no file."""
        self.before = 0.0 if path is None else _last_seconds(cut_back(path, first_step, _step))
        self._file = AppendedFile(path)

    def add(self, step: int, seconds: float) -> None:
        """Adds a step that ended `seconds` after this part of the run began."""
        self._file.add(json.dumps({"step": step, "seconds": round(self.before + seconds, 3)}).encode() + b"\n")

    def write(self) -> None:
        """Writes the lines that are not in the file yet, after earlier writes failed. Raises OSError."""
        self._file.write()


def seconds_before(path: Path, step: int) -> float:
    """The seconds that the steps before `step` took, by the times.jsonl `path`; 0 if it says nothing of them."""
    return _last_seconds(lines_before(path, step, _step))


def _last_seconds(lines: bytes) -> float:
    last = _time(lines[lines.rfind(b"\n", 0, -1) + 1 :])
    return 0.0 if last is None else last[1]


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
