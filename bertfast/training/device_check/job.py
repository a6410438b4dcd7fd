"""A worker's job: the only argument on its command line, as JSON."""

from __future__ import annotations

from typing import NamedTuple

SAMPLER, FUSED, REPLAY, ALL_REDUCE = "sampler", "fused_mlm_loss", "replayed step", "all-reduce"


class Job(NamedTuple):
    device: str
    checks: list[str]
    """Run in this order."""
    twins: list[str]
    """The ops that use their twins during the checks, because they have failed."""
    devices: int
    """The number of devices in the all-reduce."""
