"""Loss by the clock, and what follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from learning.ours import OURS


class Point(NamedTuple):
    seconds: float
    """Of training."""
    loss: float
    """Held-out masked-LM loss, nats."""


@dataclasses.dataclass
class Curve:
    kind: str
    label: str
    points: list[Point] = dataclasses.field(default_factory=list)
    """One for each slice, in order."""

    @property
    def end(self) -> Point:
        return self.points[-1]

    def seconds_to(self, loss: float) -> float | None:
        """When the loss was first this low; None: never. Between two points the curve is taken for a line.

        Before the first point nothing is known, so that one's time is the least that this returns.
        """
        if self.points[0].loss <= loss:
            return self.points[0].seconds
        for before, after in pairwise(self.points):
            if after.loss <= loss:
                share = (before.loss - loss) / (before.loss - after.loss)
                return before.seconds + share * (after.seconds - before.seconds)
        return None


def mean(label: str, curves: Sequence[Curve]) -> Curve:
    """The mean of curves of one kind, slice by slice."""
    slices = zip(*(curve.points for curve in curves), strict=True)
    points = [Point(*(sum(values) / len(values) for values in zip(*points, strict=True))) for points in slices]
    return Curve(curves[0].kind, label, points)


def of_kind(kind: str, curves: Sequence[Curve]) -> list[Curve]:
    return [curve for curve in curves if curve.kind == kind]


def one_a_kind(curves: Sequence[Curve]) -> list[Curve]:
    """For each kind the curve to compare: of ours the mean of the seeds, of others the one that ends lowest."""
    found = []
    for kind in dict.fromkeys(curve.kind for curve in curves):
        alike = of_kind(kind, curves)
        if kind == OURS and len(alike) > 1:
            found.append(mean(f"{OURS}, mean of {len(alike)} seeds", alike))
        else:
            found.append(min(alike, key=lambda curve: curve.end.loss))
    return found
