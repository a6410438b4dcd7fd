"""Trains the contenders in alternating slices, so that a slow spell of the machine meets all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from learning.contender import Contender
from learning.curve import Curve, Point

from bertfast.training.evaluation import HeldOut

SLICE = 30.0  # seconds
FEWEST = 4  # slices of a short race


def slice_ends(minutes: float) -> list[float]:
    """The clock's seconds at which slices end, the last of them after `minutes`."""
    whole = 60 * minutes
    count = max(FEWEST, round(whole / SLICE))
    return [whole * (number + 1) / count for number in range(count)]


def race(
    contenders: Sequence[Contender], minutes: float, examples: HeldOut, tell: Callable[[list[Curve]], None]
) -> list[Curve]:
    """Each contender's held-out loss at the end of each of its slices. `tell` gets the curves after each round."""
    curves = [Curve(contender.kind, contender.label) for contender in contenders]
    for end in slice_ends(minutes):
        for contender, curve in zip(contenders, curves, strict=True):
            contender.train_until(end)
            curve.points.append(Point(contender.seconds, contender.loss(examples)))
        tell(curves)
    return curves
