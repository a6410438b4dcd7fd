"""The tests that need a CUDA device: sampler, masks and replayed steps against the CPU's bits, losses against fp64.

Each test file runs in its own process, because after an illegal address everything else in the process fails.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from stage import arguments, require, save, skip

HERE = Path(__file__).parent
TESTS = HERE.parents[1] / "tests"
AT_A_TIME = 4
SECONDS = 75  # for a file, of the stage's 120
NOTHING_SELECTED = 5  # pytest's exit status


def test_files() -> list[Path]:
    """The files with GPU tests: replayed steps, on which every run depends, first; the slow ones that compile last."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(TESTS.rglob("test_*.py"))}
    on_gpu = [path for path, text in texts.items() if "mark.gpu" in text or "support.gpu" in text]
    return sorted(on_gpu, key=lambda path: ("torch.compile(" in texts[path], "Graphs(" not in texts[path]))


ending = threading.Event()
"""The stage's time is over. The processes get the same signal, end, and leave what they have found."""


def run_file(path: Path, folder: Path, seconds: float = SECONDS) -> dict[str, Any]:
    """The outcomes of a file's tests; "ended" says where and how the process was cut short, if it was."""
    if ending.is_set():
        return {"outcomes": {}, "failed": [], "ended": f"no time left for {path.name}"}
    name = "-".join(path.relative_to(TESTS).with_suffix("").parts)
    result, log = folder / f"{name}.json", folder / f"{name}.log"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu and not long",
        "-p",
        "outcomes",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(TESTS),  # failures are named relative to it
    ]
    ended = None
    with log.open("wb") as out:
        try:
            status = subprocess.run(
                [*command, str(path)],
                cwd=HERE,  # where the plugin `outcomes` is
                env={**os.environ, "RESULT": str(result)},
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            ).returncode
            if status not in (0, 1, NOTHING_SELECTED):
                ended = f"exit status {status}"
        except subprocess.TimeoutExpired:
            ended = "out of time"
    print(log.read_text(encoding="utf-8", errors="replace"), flush=True)
    found = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {"outcomes": {}, "failed": []}
    if ended:
        found["ended"] = f"{ended} in {found.get('running', path.name)}"
    return found


def main() -> None:
    if arguments().device == "cpu":
        skip("needs a CUDA device")
    require("cuda")
    try:
        import pytest  # noqa: F401
    except ImportError:
        skip("needs pytest")
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    outcomes: Counter[str] = Counter()
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_A_TIME) as pool:
        for done in as_completed([pool.submit(run_file, path, Path(folder)) for path in test_files()]):
            found = done.result()
            outcomes.update(found["outcomes"])
            failed += [*found["failed"], *([found["ended"]] if "ended" in found else [])]
            save({"outcomes": outcomes, "failed": failed})
    if failed or not outcomes["passed"]:
        sys.exit(f"{dict(outcomes)}: {', '.join(failed) or 'no test passed'}")


if __name__ == "__main__":
    main()
