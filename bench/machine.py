"""The machine, the versions and the commit behind a set of figures."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from versions import versions

ROOT = Path(__file__).parents[1]


def output(*command: str) -> str | None:
    """The output of a command; None if it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.strip() if done.returncode == 0 else None


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def origin(packages: Iterable[str]) -> dict[str, object]:
    return {
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": versions(packages),
        "commit": output("git", "rev-parse", "HEAD"),
        "changed_files": (output("git", "status", "--porcelain") or "").splitlines(),
    }
