"""The training curve as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bertfast.files import whole_file


def draw_losses(
    steps: Sequence[int],
    mlm: Sequence[float],
    nsp: Sequence[float],
    path: Path,
    unigram_entropy: float | None = None,
) -> None:
    """Draws both losses over the steps into `path` (.svg or .png).

    `unigram_entropy` (nats a token) is what the MLM loss comes to when only the words' frequencies are learned; it is
    drawn as a line to measure the curve against.
    """
    from matplotlib.figure import Figure  # slow to import, and needed once a run

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, mlm, label="MLM loss")
    if any(nsp):
        axes.plot(steps, nsp, label="NSP loss")
    if unigram_entropy is not None:
        axes.axhline(unigram_entropy, color="grey", linestyle=":", label="entropy of the words' frequencies")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    with whole_file(path) as partial:
        figure.savefig(partial)
