"""The sizes of benchmarks: those to measure, and small ones for a smoke run.

A smoke run, `pytest bench/ --benchmark-disable`, shows that each benchmark still runs. What it prints means nothing.
"""

from __future__ import annotations

import os
from typing import TypeVar

SMOKE = "BERTFAST_BENCH_SMOKE"  # an environment variable, so that a benchmark's child processes inherit it

T = TypeVar("T")


def sized(measured: T, *, smoke: T) -> T:
    """`measured`, or `smoke` in a smoke run."""
    return smoke if os.environ.get(SMOKE) else measured
