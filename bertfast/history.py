"""What a run measured: a record a step, kept in memory and in metrics.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple, TextIO


class Record(NamedTuple):
    """One step. Losses are means over the global batch, in nats."""

    step: int
    mlm_loss: float
    nsp_loss: float
    lr: float


class History:
    """The run's records, in the order of their steps."""

    def __init__(self, path: Path | None = None, first_step: int = 0) -> None:
        """With `path`, goes on from what the file says of the steps before `first_step`, and drops the rest."""
        self.records: list[Record] = []
        self._file: TextIO | None = None
        if path is None:
            return
        if path.exists():
            self.records = [record for record in read_history(path) if record.step < first_step]
        self._file = path.open("w", encoding="utf-8", buffering=1)
        for record in self.records:
            self._write(record)

    def add(self, record: Record) -> None:
        self.records.append(record)
        if self._file is not None:
            self._write(record)

    def _write(self, record: Record) -> None:
        assert self._file is not None
        self._file.write(json.dumps(record._asdict()) + "\n")

    def mean_losses(self) -> tuple[float, float]:
        """(MLM, NSP), averaged over all steps, as the notebook's closing line has them."""
        count = max(1, len(self.records))
        return sum(r.mlm_loss for r in self.records) / count, sum(r.nsp_loss for r in self.records) / count


def read_history(path: Path) -> list[Record]:
    """The records of a metrics.jsonl; a last line that a crash cut short is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(Record(**json.loads(line)))
        except ValueError:
            break
    return records
