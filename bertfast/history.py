"""What a run measured: a record a step, kept in memory, in metrics.jsonl and, if wanted, for TensorBoard."""

from __future__ import annotations

import json
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

    def __init__(self, path: Path | None = None, first_step: int = 0, tensorboard: bool = False) -> None:
        """With `path`, a metrics.jsonl, goes on from what it says of the steps before `first_step`; drops the rest.

        With `tensorboard`, event files lie beside it in tensorboard/.
        """
        self.records: list[Record] = []
        self.evaluations: list[Evaluation] = []
        self._path = path
        self._events: EventFiles | None = None
        if path is None:
            return
        if tensorboard:
            self._events = EventFiles(path.with_name("tensorboard"), first_step)
        before = [line for line in _lines(path) if line["step"] < first_step] if path.exists() else []
        with whole_file(path) as partial:
            partial.write_text("".join(json.dumps(line) + "\n" for line in before), encoding="utf-8")
        for line in before:
            if "mlm_loss" in line:
                self.records.append(Record(**line))
            else:
                self.evaluations.append(Evaluation(**line))

    def add(self, entry: Record | Evaluation) -> None:
        if isinstance(entry, Record):
            self.records.append(entry)
        else:
            self.evaluations.append(entry)
        figures = {name: value for name, value in entry._asdict().items() if value is not None}
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(figures) + "\n")
        if self._events is not None:
            self._events.add(figures.pop("step"), figures)

    def close(self) -> None:
        if self._events is not None:
            self._events.close()

    def mean_losses(self) -> tuple[float, float]:
        """(MLM, NSP), averaged over all steps, as the notebook's closing line has them."""
        count = max(1, len(self.records))
        return sum(r.mlm_loss for r in self.records) / count, sum(r.nsp_loss for r in self.records) / count


def _lines(path: Path) -> list[dict[str, Any]]:
    """A metrics.jsonl's entries; a last line that a crash cut short is left out."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries
