"""A probe's figure with its margin of error, and tables of figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Figure(NamedTuple):
    """A measured figure or a difference of two, in percent or in hundredths."""

    value: float
    margin: float
    """Two standard errors."""

    def __str__(self) -> str:
        return f"{self.value:.1f} ± {self.margin:.1f}"

    @property
    def certainly_positive(self) -> bool:
        return self.value > self.margin

    def beside(self, other: str) -> str:
        """A difference from `other` in words: `11.1 ± 1.9 points above OTHER`."""
        side = "below" if self.value < 0 else "above"
        return f"{abs(self.value):.1f} ± {self.margin:.1f} points {side} {other}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the first column aligned to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
