"""The commands, run as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from support.torchrun import HANGS

TINY = ["--hidden", "32", "--heads", "2", "--ffn", "64", "--batch-size", "16", "--max-len", "32", "--device", "cpu"]


def run(*arguments, module="pretrain", cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", f"bertfast.{module}", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=HANGS,
    )


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
