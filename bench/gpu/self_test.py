"""self_test.py PROGRAM [TOOL]: the C++ self-test on the device, one process for each group of kernels.

At the end, groups that failed or hung run again under compute-sanitizer's memcheck. With a TOOL, all groups run under
it instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from stage import SKIPPED, save, skip

SECONDS, SECONDS_UNDER_A_TOOL = 10, 30  # for a group
SANITIZER = shutil.which("compute-sanitizer", path=f"{os.environ['PATH']}:/usr/local/cuda/bin")


def run(command: list[str], seconds: float) -> tuple[int, str]:
    """The exit status (124: out of time) and the output."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return 124, "out of time"
    return done.returncode, done.stdout.strip()


def under(tool: str, command: list[str]) -> tuple[int, str]:
    if SANITIZER is None:
        return SKIPPED, "needs compute-sanitizer"
    return run([SANITIZER, "--tool", tool, "--error-exitcode", "1", *command], SECONDS_UNDER_A_TOOL)


def main() -> None:
    program, *tools = sys.argv[1:]
    if not os.access(program, os.X_OK):
        skip(f"there is no {Path(program).name}")
    if tools and SANITIZER is None:
        skip("needs compute-sanitizer")
    statuses: dict[str, int] = {}
    listed, groups = run([program, "--list"], SECONDS)
    if listed:
        sys.exit(f"{Path(program).name} does not start: {groups}")
    for group in groups.split():
        command = [program, group]
        status, output = under(tools[0], command) if tools else run(command, SECONDS)
        if status == SKIPPED:
            skip(output)
        print(f"{group}: exit status {status}\n{output}", flush=True)
        statuses[group] = status
        save({"statuses": statuses})
    failed = [group for group, status in statuses.items() if status]
    for group in failed if not tools else ():
        print(f"{group} under memcheck:\n{under('memcheck', [program, group])[1]}", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
