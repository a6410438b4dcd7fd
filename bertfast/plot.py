"""The training curve as a picture."""

from __future__ import annotations

from pathlib import Path

from bertfast.files import whole_file
from bertfast.history import History


def draw_losses(history: History, path: Path, unigram_entropy: float) -> None:
    """Draws the losses over the steps into `path` (.svg or .png), and those on held-out text where there are any.

    `unigram_entropy` (nats a token) is what the MLM loss comes to when only the words' frequencies are learned; it is
    drawn as a line to measure the curve against.
    """
    from matplotlib.figure import Figure  # slow to import, and needed once a run

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    steps = [record.step + 1 for record in history.records]
    axes.plot(steps, [record.mlm_loss for record in history.records], label="MLM loss", color="C0")
    if any(record.nsp_loss for record in history.records):
        axes.plot(steps, [record.nsp_loss for record in history.records], label="NSP loss", color="C1")
    if history.evaluations:
        steps = [entry.step + 1 for entry in history.evaluations]
        losses = [entry.eval_mlm_loss for entry in history.evaluations]
        axes.plot(steps, losses, "o--", label="MLM loss, held-out text", color="C0")
    axes.axhline(unigram_entropy, color="grey", linestyle=":", label="entropy of the words' frequencies")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    with whole_file(path) as partial:
        figure.savefig(partial)
