"""A pytest plugin that counts outcomes and saves them before and after each test, so that a crash loses none."""

from __future__ import annotations

from collections import Counter

import pytest
from stage import save

COUNTS: Counter[str] = Counter()
FAILED: list[str] = []


def pytest_runtest_logstart(nodeid: str) -> None:
    save({"outcomes": COUNTS, "failed": FAILED, "running": nodeid})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        COUNTS[report.outcome] += 1
    if report.outcome == "failed":
        FAILED.append(report.nodeid)


def pytest_runtest_logfinish() -> None:
    save({"outcomes": COUNTS, "failed": FAILED})
