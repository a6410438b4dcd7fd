"""What a worker is asked: the one argument of its command line, as JSON."""

from __future__ import annotations

from typing import NamedTuple

SAMPLER, FUSED, REPLAY, ALL_REDUCE = "sampler", "fused_mlm_loss", "replayed step", "all-reduce"


class Job(NamedTuple):
    device: str
    checks: list[str]
    """In this order."""
    twins: list[str]
    """The ops that are computed by their twins meanwhile, because they have failed."""
    devices: int
    """How many the all-reduce is over."""
