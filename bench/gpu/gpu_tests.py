"""The tests that need a CUDA device: sampler, masks and replayed steps against the CPU's bits, losses against fp64."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from stage import arguments, require, save, skip

TESTS = Path(__file__).parents[2] / "tests"


class Outcomes:
    """Counts them, as a plugin of pytest's."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: object) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1
        if report.outcome == "failed":
            self.failed.append(report.nodeid)
        save({"outcomes": self.counts, "failed": self.failed})


def main() -> None:
    if arguments().device == "cpu":
        skip("needs a CUDA device")
    require("cuda")
    try:
        import pytest
    except ImportError:
        skip("needs pytest")
    files = [str(path) for path in sorted(TESTS.glob("test_*.py")) if "mark.gpu" in path.read_text(encoding="utf-8")]
    outcomes = Outcomes()
    status = pytest.main(["-q", "-m", "gpu and not long", "-p", "no:cacheprovider", *files], plugins=[outcomes])
    if status or not outcomes.counts["passed"]:
        sys.exit(f"{dict(outcomes.counts)}: {', '.join(outcomes.failed) or 'no test passed'}")


if __name__ == "__main__":
    main()
