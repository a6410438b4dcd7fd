"""The commands, run as a user runs them."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from support import processes


def run(*arguments: object, module: str = "pretrain") -> subprocess.CompletedProcess[str]:
    """`python -m bertfast.MODULE ARGUMENTS`, but for the second that its imports take."""
    with tempfile.TemporaryDirectory() as folder:
        done = processes.run(arguments, Path(folder) / "log", module=module)
    return subprocess.CompletedProcess([module, *arguments], done.status, done.out, done.err)


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
