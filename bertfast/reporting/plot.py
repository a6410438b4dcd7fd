"""The training curve as a figure for a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bertfast.files import whole_file
from bertfast.reporting.metrics import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Values = npt.NDArray[np.float64]

# Two colours of the Okabe-Ito palette: distinct for every kind of colour vision, and in print.
_TRAINING, _HELD_OUT, _REFERENCE = "#0072B2", "#D55E00", "#555555"
_UNSMOOTHED = 200  # the most steps that are drawn without smoothing
_POINTS = 1000  # the most points of a curve, as many as the figure's width can show

# Leaves out metadata that differs between runs, such as dates.
_METADATA = {".svg": {"Date": None, "Creator": None}, ".png": {"Software": None}}


def draw_losses(history: History, folder: Path, unigram_entropy: float, objective: str) -> None:
    """Draws the losses over the steps into loss.svg and loss.png, with those on held-out text if there are any.

    `unigram_entropy` (nats a token), drawn as a reference line, is the MLM loss of a model that has learned only the
    words' frequencies. The loss on the sentence pairs of the `objective` (nsp or sop) has its own axes, with log 2, the
    loss of a random guess.
    """
    import matplotlib  # here, since importing it is slow
    from matplotlib.figure import Figure

    pairs = objective != "none"
    figure = Figure(figsize=(6.4, 4.4 if pairs else 3.4), layout="constrained")
    axes = figure.subplots(2 if pairs else 1, sharex=True, squeeze=False, height_ratios=[2, 1] if pairs else None)[:, 0]
    for panel, values, held_out in (
        (axes[0], [record.mlm_loss for record in history.records], [e.eval_mlm_loss for e in history.evaluations]),
        (axes[-1], [record.nsp_loss for record in history.records], [e.eval_nsp_loss for e in history.evaluations]),
    )[: len(axes)]:
        _draw_curve(panel, [record.step + 1 for record in history.records], values)
        if held_out:
            steps = [entry.step + 1 for entry in history.evaluations]
            panel.plot(steps, held_out, "o--", color=_HELD_OUT, markersize=4, linewidth=1.2, label="held-out text")
        panel.grid(alpha=0.25, linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    _draw_reference(axes[0], unigram_entropy, "unigram entropy")
    axes[0].set_ylabel("MLM loss (nats)")
    if pairs:
        _draw_reference(axes[1], math.log(2), "chance")
        axes[1].set_ylabel(f"{objective.upper()} loss (nats)")
    axes[-1].set_xlabel("step")
    figure.align_ylabels()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=9)
    for suffix, metadata in _METADATA.items():
        with whole_file(folder / f"loss{suffix}") as partial, matplotlib.rc_context({"svg.hashsalt": "bertfast"}):
            figure.savefig(partial, dpi=200, metadata=metadata)  # the salt makes ids reproducible


def _draw_curve(axes: Axes, steps: Sequence[int], losses: Sequence[float]) -> None:
    """Draws a short run's losses as they are, and a long run's smoothed, over the range of the original values."""
    if len(steps) <= _UNSMOOTHED:
        axes.plot(steps, losses, color=_TRAINING, linewidth=1.5, label="training")
        return
    at, values = np.array(steps), np.array(losses)
    bins = np.unique(np.linspace(0, len(at), min(len(at), _POINTS) + 1).astype(np.int64))[:-1]
    low, high = np.minimum.reduceat(values, bins), np.maximum.reduceat(values, bins)
    if len(bins) == len(at):
        axes.plot(at, values, color=_TRAINING, alpha=0.3, linewidth=0.6, label="each step")
    else:
        axes.fill_between(at[bins], low, high, color=_TRAINING, alpha=0.25, linewidth=0, label="each step")
    half = len(at) // 100
    axes.plot(at[bins], _smoothed(values, half)[bins], color=_TRAINING, linewidth=1.5, label="training, smoothed")


def _smoothed(values: Values, half: int) -> Values:
    """The mean of each value and up to `half` values before and after it."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    begin, end = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    means: Values = (sums[end] - sums[begin]) / (end - begin)
    return means


def _draw_reference(axes: Axes, value: float, label: str) -> None:
    """Draws a dotted line with its name at the right end."""
    axes.axhline(value, color=_REFERENCE, linestyle=":", linewidth=1.2)
    axes.annotate(
        f"{label}: {value:.2f}",
        (1, value),
        xycoords=axes.get_yaxis_transform(),
        xytext=(-2, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=8,
        color=_REFERENCE,
    )
