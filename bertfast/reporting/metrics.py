"""A run's metrics: one record per step, in memory, in metrics.jsonl and, if requested, for TensorBoard."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from bertfast.reporting.appended_file import AppendedFile, cut_back

logger = logging.getLogger(__name__)


class Record(NamedTuple):
    """One step. Losses are means over the global batch, in nats."""

    step: int
    mlm_loss: float
    nsp_loss: float
    lr: float
    gradient_norm: float | None = None
    """Before clipping. None in a line that bertfast 0.3 wrote."""
    tokens: int | None = None
    """Tokens of the global batch, special tokens included. None in a line that bertfast 0.3 wrote."""
    kept_loss: float | None = None
    """With --keep-vectors: its weight times the mean of 1 - cos, the distance to the examples' vectors at the start."""


class Evaluation(NamedTuple):
    """Metrics on held-out text after a step. Losses in nats, accuracies in [0, 1]; no NSP metrics without pairs."""

    step: int
    eval_mlm_loss: float
    eval_mlm_perplexity: float
    eval_mlm_accuracy: float
    eval_nsp_loss: float | None = None
    eval_nsp_accuracy: float | None = None
    eval_examples: int | None = None
    """The number of examples, always the first ones of the held-out text. None in a line that bertfast 0.3 wrote."""
    eval_standard_mlm_loss: float | None = None
    """On examples that are the same for every run (`STANDARD` in training/evaluation.py); None if they are too long."""


# Bytes at the end of metrics.jsonl that a resumed run parses at the start: more steps than a diagnosis needs.
_LATEST = 1 << 20


class History:
    """The run's records and evaluations, in the order of their steps.

    A resumed run loads only the latest ones; `complete` loads the rest. So a run of a million steps resumes as fast as
    one of a hundred.
    """

    def __init__(
        self,
        path: Path | None = None,
        first_step: int = 0,
        tensorboard: bool = False,
    ) -> None:
        """With `path`, a metrics.jsonl, continues after its entries before `first_step`, and drops the others.

        With `tensorboard`, also writes event files to the folder tensorboard/ beside it. TensorBoard ignores earlier
        files' entries for `first_step` and later steps.
        """
        self._path = path
        lines = b"" if path is None else cut_back(path, first_step, _step)
        self._events = None
        if path and tensorboard:  # after metrics.jsonl, without which a killed run's folder can't be resumed
            from torch.utils.tensorboard import SummaryWriter  # here, since importing it is slow

            self._events = SummaryWriter(path.with_name("tensorboard"), purge_step=first_step)
        self._file = AppendedFile(path)
        self._unread = lines.rfind(b"\n", 0, max(0, len(lines) - _LATEST)) + 1  # bytes at the start of the file
        self.records, self.evaluations = _entries(lines[self._unread :])
        # Steps before `first_step` that the file lacks, or that are not loaded yet.
        self._missing = first_step - len(self.records)

    def add(self, entry: Record | Evaluation) -> None:
        if isinstance(entry, Record):
            self.records.append(entry)
        else:
            self.evaluations.append(entry)
        self._file.add(_line(entry))
        if self._events is not None:
            for name, value in _figures(entry).items():
                if name != "step":
                    self._events.add_scalar(name, value, entry.step)

    def write(self) -> None:
        """Writes the entries that are not in the file yet, after earlier writes failed. Raises OSError."""
        self._file.write()

    def complete(self) -> None:
        """Loads the earlier entries; warns if the file lacks completed steps."""
        if self._path is not None and self._unread:
            records, evaluations = _entries(self._path.read_bytes()[: self._unread])
            self.records[:0], self.evaluations[:0] = records, evaluations
            self._unread = 0
            self._missing -= len(records)
        if self._missing:
            logger.warning("%s lacks %s of the steps that were done", self._path, self._missing)

    def close(self) -> None:
        if self._events is not None:
            self._events.close()

    def mean_losses(self) -> tuple[float, float]:
        """(MLM, NSP), averaged over all steps, as in the notebook's closing line."""
        count = max(1, len(self.records))
        return sum(r.mlm_loss for r in self.records) / count, sum(r.nsp_loss for r in self.records) / count


def _figures(entry: Record | Evaluation) -> dict[str, Any]:
    return {name: value for name, value in entry._asdict().items() if value is not None}


def _line(entry: Record | Evaluation) -> bytes:
    return json.dumps(_figures(entry)).encode() + b"\n"


def _entry(line: bytes) -> Record | Evaluation | None:
    """Parses a line of metrics.jsonl; None if it is not valid."""
    try:
        figures = json.loads(line)
        if all(isinstance(value, int | float) for value in figures.values()):
            return Record(**figures) if "mlm_loss" in figures else Evaluation(**figures)
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    return None


def _step(line: bytes) -> int | None:
    return None if (entry := _entry(line)) is None else entry.step


def _entries(lines: bytes) -> tuple[list[Record], list[Evaluation]]:
    entries = list(map(_entry, lines.splitlines()))
    records = [entry for entry in entries if isinstance(entry, Record)]
    return records, [entry for entry in entries if isinstance(entry, Evaluation)]
