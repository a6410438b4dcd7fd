"""The curves as a figure: held-out loss against minutes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from learning.curve import Curve, of_kind, one_a_kind

from bertfast.files import whole_file

# Colours of the Okabe-Ito palette: distinct for every kind of colour vision, and in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def draw(curves: Sequence[Curve], title: str, path: Path) -> None:
    """Draws a line for each kind into `path` (.svg), with a band over the curves of our seeds."""
    import matplotlib  # slow to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for curve, colour in zip(one_a_kind(curves), COLOURS, strict=False):
        at = [point.seconds / 60 for point in curve.points]
        axes.plot(at, [point.loss for point in curve.points], color=colour, linewidth=1.5, label=curve.label)
        if curve not in curves:  # a mean
            losses = [[point.loss for point in each.points] for each in of_kind(curve.kind, curves)]
            low, high = (list(map(choose, *losses)) for choose in (min, max))
            axes.fill_between(at, low, high, color=colour, alpha=0.25, linewidth=0)
    axes.set(xlabel="minutes of training", ylabel="held-out masked-LM loss (nats)", title=title, xlim=(0, None))
    axes.title.set_fontsize(9)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    with whole_file(path) as partial, matplotlib.rc_context({"svg.hashsalt": "bertfast"}):  # reproducible ids
        figure.savefig(partial, metadata={"Date": None, "Creator": None})
