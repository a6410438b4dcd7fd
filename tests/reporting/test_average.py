"""The table of the figures that a run's averages were judged by."""

from __future__ import annotations

from bertfast.reporting.average import Average, Judged
from bertfast.reporting.figure import Figure


def rows(*judged: Judged, labels: int = 0) -> list[list[str]]:
    return Average(0.25, judged, labels, "By hand.").rows()


def test_all_figures():
    judged = [Judged(0.25 * i, Figure(50 + i, 2), Figure(60 - i, 1.25), 2 + i / 8) for i in range(2)]
    assert rows(*judged, labels=12_345) == [
        ["share", "accuracy, 12,345 labels", "similarity", "held-out MLM loss"],
        ["0", "50.0 ± 2.0", "60.0 ± 1.2", "2.000"],
        ["0.25", "51.0 ± 2.0", "59.0 ± 1.2", "2.125"],
    ]


def test_what_was_not_measured_is_left_out():
    """A column that some have is kept, with empty cells for the others."""
    zero = Figure(0, 0)
    assert rows(Judged(0, None, None, None), Judged(1, None, zero, None)) == [
        ["share", "similarity"],
        ["0", ""],
        ["1", "0.0 ± 0.0"],
    ]
    assert rows(Judged(1, None, None, 0.0)) == [["share", "held-out MLM loss"], ["1", "0.000"]]
    assert rows(Judged(0.5, None, None, None)) == [["share"], ["0.5"]]
