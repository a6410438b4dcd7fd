"""record.py FOLDER STAGE STATUS SECONDS: completes a stage's JSON, and merges all stages into results.json.

STATUS is the command's exit status. If a stage did not pass, the last line of its log is the reason.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SAID = {0: "passed", 77: "skipped", 124: "out of time", 137: "out of time"}


def record(folder: Path, stage: str, status: int, seconds: float) -> None:
    path, log = folder / f"{stage}.json", folder / f"{stage}.log"
    entry = {"stage": stage, "status": SAID.get(status, "failed"), "exit_status": status, "seconds": seconds}
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if status:
        entry["reason"] = lines[-1].strip() if lines else "no output"
    if path.exists():
        entry["result"] = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
    merged = folder / "results.json"
    entries = json.loads(merged.read_text(encoding="utf-8")) if merged.exists() else []
    merged.write_text(json.dumps([*entries, entry], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
