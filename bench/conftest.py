"""`compare`: ours beside its peers in one run, alternating and warm; medians and ratios in the summary."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from sizes import SMOKE
from versions import versions

PACKAGES = ("bertfast", "torch", "numpy", "transformers", "sentence-transformers", "d2l")
TABLES: list[list[str]] = []


def pytest_configure(config: pytest.Config) -> None:
    """Before the benchmarks are imported, whose sizes depend on it."""
    if config.getoption("benchmark_disable"):
        os.environ[SMOKE] = "1"


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """The saved JSON, too, says what ran."""
    machine_info["versions"] = versions(PACKAGES)
    machine_info["threads"] = torch.get_num_threads()
    machine_info["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None


@pytest.fixture
def tables() -> list[list[str]]:
    """Tables, each a list of lines, for the terminal's summary."""
    return TABLES


@pytest.fixture
def compare(benchmark: Any) -> Callable[..., dict[str, float]]:
    """compare(name, ours, peers, rounds=7, items=1, unit="call", warmup=0) -> median seconds of one item, by label.

    ours: callable without arguments that does its work to the end (on a GPU: synchronises before it returns).
    peers: label -> callable that does the same task.
    items: how many items (pairs, rows) one call handles, or a mapping label -> number, "ours" among its keys.
    warmup: calls of ours before all others, where one is not enough.

    Each round times every peer once and then ours, so that a slow spell of the machine meets all alike; one
    round before them warms up. What pytest-benchmark saves is ours; `extra_info` holds all rates.
    """

    def run(
        name: str,
        ours: Callable[[], object],
        peers: Mapping[str, Callable[[], object]],
        rounds: int = 7,
        items: int | Mapping[str, int] = 1,
        unit: str = "call",
        warmup: int = 0,
    ) -> dict[str, float]:
        calls = {"ours": ours, **peers}
        seconds: dict[str, list[float]] = {label: [] for label in calls}

        def timed(label: str) -> None:
            start = time.perf_counter()
            calls[label]()
            seconds[label].append(time.perf_counter() - start)

        def time_peers() -> None:
            for label in peers:
                timed(label)

        for _ in range(0 if benchmark.disabled else warmup):
            ours()
        benchmark.pedantic(timed, args=("ours",), setup=time_peers, rounds=rounds, warmup_rounds=1)
        # With --benchmark-disable there is one round, cold.
        warm = {label: times[1:] or times for label, times in seconds.items()}
        count = {label: items if isinstance(items, int) else items[label] for label in calls}
        cost = {label: statistics.median(times) / count[label] for label, times in warm.items()}
        table = [name]
        for label in calls:
            rate = 1 / cost[label]
            benchmark.extra_info[f"{label} ({unit}/s)"] = rate
            ratio = f"{cost[label] / cost['ours']:10.2f}x ours' time"
            table.append(f"  {label:<44} {rate:>14,.1f} {unit}/s" + (ratio if label != "ours" else ""))
        TABLES.append(table)
        return cost

    return run


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not TABLES:
        return
    machine = config.hook.pytest_benchmark_generate_machine_info(config=config)
    commit = config.hook.pytest_benchmark_generate_commit_info(config=config)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    terminalreporter.section("ratios of medians")
    terminalreporter.line(
        f"{machine['cpu'].get('brand_raw', machine['processor'])}, {torch.get_num_threads()} threads, {gpu}; "
        f"Python {machine['python_version']}, " + ", ".join(f"{k} {v}" for k, v in versions(PACKAGES).items())
    )
    terminalreporter.line(f"commit {commit['id']}" + (" with changes" if commit["dirty"] else ""))
    for table in TABLES:
        for line in table:
            terminalreporter.line(line)
