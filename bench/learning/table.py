"""The curves as tables: losses at times of the clock, and the times to others' losses."""

from __future__ import annotations

from collections.abc import Sequence

from learning.curve import Curve, one_a_kind

from bertfast.reporting.figure import table

MINUTES = (0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 45, 60)


def loss_table(curves: Sequence[Curve], ends: Sequence[float]) -> list[str]:
    """A row for each curve, and for the mean of ours; a column for each of `MINUTES` at which a slice ends."""
    shown = [index for index, end in enumerate(ends) if round(end / 60, 6) in MINUTES or end == ends[-1]]
    means = [curve for curve in one_a_kind(curves) if curve not in curves]
    rows = [["minutes of training", *(f"{ends[index] / 60:.3g}" for index in shown)]]
    rows += [[curve.label, *(f"{curve.points[index].loss:.3f}" for index in shown)] for curve in [*means, *curves]]
    return ["held-out masked-LM loss", *table(rows)]


def time_table(curves: Sequence[Curve]) -> list[str]:
    """A row for each kind's loss at its end, with the minutes in which the others have it."""
    compared = one_a_kind(curves)
    rows = [["minutes to the loss that is reached by", "loss", "after", *(curve.kind for curve in compared)]]
    for target in compared:
        reached = ["-" if each is target else minutes(each.seconds_to(target.end.loss)) for each in compared]
        rows.append([target.label, f"{target.end.loss:.3f}", minutes(target.end.seconds), *reached])
    return table(rows)


def minutes(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds / 60:.2f}"
