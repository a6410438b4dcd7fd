"""The average of the weights before and after training that a run wrote, and the figures behind its choice."""

from __future__ import annotations

import dataclasses

from bertfast.reporting.figure import Figure


@dataclasses.dataclass(frozen=True)
class Judged:
    """The figures of the model whose weights are start + `share` (trained - start)."""

    share: float
    labels: Figure | None
    """Accuracy of a classifier on frozen vectors, in percent; None if it was not measured."""
    similarity: Figure | None
    """Spearman's correlation of cosines with the scores of pairs, times 100."""
    mlm_loss: float | None
    """On held-out text, in nats."""


@dataclasses.dataclass(frozen=True)
class Average:
    """The average that a run wrote, and the figures by which it was chosen."""

    share: float
    judged: tuple[Judged, ...]
    labels: int
    """The number of labels that the classifier learned from; 0 without labels."""
    reason: str
    """Why it was chosen, in sentences."""

    def rows(self) -> list[list[str]]:
        """The figures as a table with a header. A column without figures is left out."""
        columns = {
            "share": [f"{model.share:g}" for model in self.judged],
            f"accuracy, {self.labels:,} labels": [str(model.labels or "") for model in self.judged],
            "similarity": [str(model.similarity or "") for model in self.judged],
            "held-out MLM loss": ["" if model.mlm_loss is None else f"{model.mlm_loss:.3f}" for model in self.judged],
        }
        filled = [[name, *cells] for name, cells in columns.items() if any(cells)]
        return [list(row) for row in zip(*filled, strict=True)]
