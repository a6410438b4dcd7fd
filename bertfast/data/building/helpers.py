"""Processes that help with a build: as many as there are cores, each a run of `help_out` in build.py.

They get the plan on standard input, and end when that does, however the process ends that they help.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator

# With the process that they help. Each takes up to 100 MB, and that one 300 while it learns a vocabulary.
_MOST = 8
_HELP = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # who is helped decides
from bertfast.data.building.build import help_out
sys.exit(help_out())
"""


@contextlib.contextmanager
def helping(plan: object, units: int) -> Iterator[None]:
    """Within, this machine's other cores do the plan's tasks too, where there are as many units."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores //= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-c", _HELP]
    helpers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) for _ in range(min(cores, units, _MOST) - 1)
    ]
    inputs = [helper.stdin for helper in helpers if helper.stdin]
    try:
        for each in inputs:
            with contextlib.suppress(BrokenPipeError):  # it has ended, and said why
                each.write(pickle.dumps(plan))
                each.flush()
        yield
    finally:
        for each in inputs:
            with contextlib.suppress(BrokenPipeError):
                each.close()
        for helper in helpers:
            helper.wait()
