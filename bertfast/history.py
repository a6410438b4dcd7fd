"""What a run measured: a record a step, kept in memory, in metrics.jsonl and, if wanted, for TensorBoard."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bertfast.files import whole_file
from bertfast.tensorboard import EventFiles


class Record(NamedTuple):
    """One step. Losses are means over the global batch, in nats."""

    step: int
    mlm_loss: float
    nsp_loss: float
    lr: float


class Evaluation(NamedTuple):
    """The held-out text after a step. Losses in nats, accuracies in [0, 1]; no NSP where there are no pairs."""

    step: int
    eval_mlm_loss: float
    eval_mlm_perplexity: float
    eval_mlm_accuracy: float
    eval_nsp_loss: float | None = None
    eval_nsp_accuracy: float | None = None


class History:
    """The run's records and evaluations, in the order of their steps."""

    def __init__(
        self,
        path: Path | None = None,
        first_step: int = 0,
        tensorboard: bool = False,
        say: Callable[[str], None] = print,
    ) -> None:
        """With `path`, a metrics.jsonl, goes on from what it says of the steps before `first_step`; drops the rest.

        With `tensorboard`, event files lie beside it in tensorboard/. `say` is told what the disk refuses or lacks.
        """
        self.records: list[Record] = []
        self.evaluations: list[Evaluation] = []
        self._path = path
        self._say = say
        self._events: EventFiles | None = None
        self._unwritten = b""
        if path is None:
            return
        if tensorboard:
            self._events = EventFiles(path.with_name("tensorboard"), first_step)
        before = [entry for entry in _entries(path) if entry.step < first_step] if path.exists() else []
        self.records = [entry for entry in before if isinstance(entry, Record)]
        self.evaluations = [entry for entry in before if isinstance(entry, Evaluation)]
        if len(self.records) < first_step:
            say(f"warning: {path} tells only {len(self.records)} of the {first_step} steps that were done")
        with whole_file(path) as partial:
            partial.write_bytes(b"".join(map(_line, before)))
        self._size = path.stat().st_size

    def add(self, entry: Record | Evaluation) -> None:
        if isinstance(entry, Record):
            self.records.append(entry)
        else:
            self.evaluations.append(entry)
        if self._path is not None:
            failing = self._unwritten != b""
            self._unwritten += _line(entry)
            try:
                self.write()
            except OSError as error:
                if not failing:
                    self._say(f"warning: {self._path} can't be written: {error.strerror}; what it lacks is kept")
        if self._events is not None:
            figures = _figures(entry)
            self._events.add(figures.pop("step"), figures)

    def write(self) -> None:
        """Writes what is not in the file yet: all that was added since the disk refused it. Raises OSError."""
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

    def close(self) -> None:
        if self._events is not None:
            self._events.close()

    def mean_losses(self) -> tuple[float, float]:
        """(MLM, NSP), averaged over all steps, as the notebook's closing line has them."""
        count = max(1, len(self.records))
        return sum(r.mlm_loss for r in self.records) / count, sum(r.nsp_loss for r in self.records) / count


def _figures(entry: Record | Evaluation) -> dict[str, Any]:
    return {name: value for name, value in entry._asdict().items() if value is not None}


def _line(entry: Record | Evaluation) -> bytes:
    return json.dumps(_figures(entry)).encode() + b"\n"


def _entries(path: Path) -> list[Record | Evaluation]:
    """A metrics.jsonl's entries, up to the first line that is none: a crash can cut the end short."""
    entries: list[Record | Evaluation] = []
    for line in path.read_bytes().splitlines():
        try:
            figures = json.loads(line)
            if not all(isinstance(value, int | float) for value in figures.values()):
                break
            entries.append(Record(**figures) if "mlm_loss" in figures else Evaluation(**figures))
        except (ValueError, TypeError, AttributeError, RecursionError):
            break
    return entries
