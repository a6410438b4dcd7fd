"""`compare` times ours and its peers in turns, warm, and adds their medians and ratios to a table at the end."""

from __future__ import annotations

import gc
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from sizes import SMOKE
from support.notebook import wikitext_folder
from versions import versions

PACKAGES = ("bertfast", "torch", "numpy", "transformers", "sentence-transformers", "d2l")
SPINNING = 0.01  # seconds, of OpenMP's threads after their last work
TABLES: list[list[str]] = []


class Row(NamedTuple):
    """One line of the table."""

    name: str
    peer: str
    unit: str
    ours: float
    theirs: float
    least: float
    """The lowest ratio that meets the bar; 0: no bar."""
    most: float
    """The highest ratio that meets the bar, where less is better; 0: no bar."""

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs

    def bar(self) -> str:
        if os.environ.get(SMOKE):
            return ""
        if self.least:
            return f">= {self.least:g}" + " (missed)" * (self.ratio < self.least)
        if self.most:
            return f"<= {self.most:g}" + " (missed)" * (self.ratio > self.most)
        return ""


ROWS: list[Row] = []


def pytest_configure(config: pytest.Config) -> None:
    """Runs before the benchmarks are imported: their sizes depend on the smoke setting."""
    config.option.benchmark_quiet = True  # pytest-benchmark's own table compares unrelated benchmarks
    if config.getoption("benchmark_disable"):
        os.environ[SMOKE] = "1"


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Records the versions and the hardware in the saved JSON."""
    machine_info["versions"] = versions(PACKAGES)
    machine_info["threads"] = torch.get_num_threads()
    machine_info["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None


@pytest.fixture
def wikitext() -> Path:
    """The folder of WikiText-2. Without it the benchmark skips, before child processes fail for its lack."""
    return wikitext_folder()


@pytest.fixture
def tables() -> list[list[str]]:
    """Results other than ratios: tables, each a list of lines, for the terminal summary."""
    return TABLES


@pytest.fixture
def add_row() -> Callable[..., None]:
    """add_row(name, peer, unit, ours, theirs, least=0, most=0): a line of the table, with its bar."""

    def add(name: str, peer: str, unit: str, ours: float, theirs: float, least: float = 0, most: float = 0) -> None:
        ROWS.append(Row(name, peer, unit, ours, theirs, least, most))

    return add


@pytest.fixture
def compare(benchmark: Any, add_row: Callable[..., None]) -> Iterator[Callable[..., dict[str, float]]]:
    """compare(name, ours, peers, rounds=7, items=1, unit="call", warmup=1, bars={}) -> median seconds per item.

    ours: callable without arguments that completes its work (on a GPU: synchronises before it returns).
    peers: label -> callable that does the same task.
    items: how many items (pairs, rows) one call handles, or a mapping label -> number, "ours" among its keys.
    warmup: the rounds before these, which are not counted.
    bars: peer's label -> the lowest acceptable ratio of the peer's time to ours.

    Each round times every peer once and then ours, so that a slow phase of the machine affects all alike. Before each,
    the threads of the one before fall asleep: OpenMP's spin for milliseconds, on cores that the next would need.
    pytest-benchmark saves the times of ours; `extra_info` holds all rates.
    """

    def run(
        name: str,
        ours: Callable[[], object],
        peers: Mapping[str, Callable[[], object]],
        rounds: int = 7,
        items: float | Mapping[str, float] = 1,
        unit: str = "call",
        warmup: int = 1,
        bars: Mapping[str, float] | None = None,
    ) -> dict[str, float]:
        calls = {"ours": ours, **peers}
        seconds: dict[str, list[float]] = {label: [] for label in calls}

        def timed(label: str) -> None:
            time.sleep(SPINNING)
            start = time.perf_counter()
            calls[label]()
            seconds[label].append(time.perf_counter() - start)

        def time_peers() -> None:
            for label in peers:
                timed(label)

        benchmark.pedantic(timed, args=("ours",), setup=time_peers, rounds=rounds, warmup_rounds=warmup)
        # With --benchmark-disable there is one round, cold.
        warm = {label: times[warmup:] or times for label, times in seconds.items()}
        count = {label: items[label] if isinstance(items, Mapping) else items for label in calls}
        cost = {label: statistics.median(times) / count[label] for label, times in warm.items()}
        rates = {label: 1 / seconds for label, seconds in cost.items()}
        benchmark.extra_info.update({f"{label} ({unit}/s)": rate for label, rate in rates.items()})
        for label in peers:
            add_row(name, label, f"{unit}/s", rates["ours"], rates[label], least=(bars or {}).get(label, 0))
        return cost

    yield run
    gc.collect()  # models are in reference cycles, and the next benchmark's are as large


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not TABLES and not ROWS:
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
    for line in (*_table(ROWS), *(line for table in TABLES for line in table)):
        terminalreporter.line(line)


def _table(rows: Sequence[Row]) -> list[str]:
    """A heading for each benchmark, and under it a line for each peer."""
    lines: list[str] = [f"{'':<46}{'ours':>13}{'theirs':>13}  {'':<14}{'ratio':>7}  bar"] if rows else []
    for name, group in itertools.groupby(rows, key=lambda row: row.name):
        lines.append(name)
        for row in group:
            rates = "".join(
                f"{rate:>13,.{0 if rate >= 100 else 1 if rate >= 10 else 2}f}" for rate in (row.ours, row.theirs)
            )
            lines.append(f"  {row.peer:<44}{rates}  {row.unit:<14}{row.ratio:>7.2f}  {row.bar()}".rstrip())
    return lines
