"""The verdict on a device: made in separate processes, under a time limit, and cached.

An illegal address, a crash or a hang is a failure too, and the remaining checks get a new process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from bertfast import ops
from bertfast._native import native
from bertfast._version import __version__
from bertfast.data.load import default_cache
from bertfast.files import whole_file
from bertfast.torchrun import environment_outside
from bertfast.training.device_check.job import ALL_REDUCE, FUSED, REPLAY, SAMPLER, Job

logger = logging.getLogger(__name__)

WORKER = (sys.executable, "-m", "bertfast.training.device_check.worker")
SECONDS = 120.0
"""The time limit for a check. On a GPU newer than the build, the driver compiles each kernel first."""

BEGINNING_SECONDS = 300.0
"""The time limit for a process to import everything and reach its device."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    check: str
    status: str
    """passed, failed, or not checked."""
    said: str
    seconds: float

    @property
    def failed(self) -> bool:
        return self.status == "failed"


@dataclasses.dataclass(frozen=True)
class Verdict:
    outcomes: tuple[Outcome, ...]

    @property
    def failures(self) -> dict[str, str]:
        """The failed checks, and how each failed."""
        return {each.check: each.said for each in self.outcomes if each.failed}

    @property
    def is_good(self) -> bool:
        """Whether every check passed."""
        return all(each.status == "passed" for each in self.outcomes)

    def rows(self) -> list[tuple[str, ...]]:
        """Rows for a table: check, status, seconds, and message."""
        return [(each.check, each.status, f"{each.seconds:.1f} s", each.said) for each in self.outcomes]

    def as_json(self) -> dict[str, Any]:
        return {"good": self.is_good, "outcomes": [dataclasses.asdict(each) for each in self.outcomes]}


def subject(device: torch.device, devices: int) -> dict[str, Any]:
    """What a verdict depends on: two machines with the same subject share it."""
    on_cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_cuda else f"CPU ({native.isa()})",
        "devices": devices,
        "driver": driver() if on_cuda else None,
        "torch": str(torch.__version__),
        "CUDA": torch.version.cuda,
        "bertfast": __version__,
        "build": hashlib.blake2b(Path(str(native.__file__)).read_bytes(), digest_size=8).hexdigest(),
    }


def driver() -> str:
    """The NVIDIA driver's version, or "unknown"."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def cached(device: torch.device, devices: int) -> Verdict | None:
    """The cached verdict, or None if it is missing or unreadable."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        outcomes = json.loads(_path(device, devices).read_text(encoding="utf-8"))["outcomes"]
        return Verdict(tuple(Outcome(**each) for each in outcomes))
    return None


def make(device: torch.device, devices: int) -> Verdict:
    """Makes a new verdict, and caches it."""
    verdict = Verdict(tuple(examine(device, devices)))
    store(verdict, device, devices)
    return verdict


def store(verdict: Verdict, device: torch.device, devices: int) -> None:
    """Caches the verdict, if every check ran."""
    if any(each.status == "not checked" for each in verdict.outcomes):
        return
    path = _path(device, devices)
    text = {"of": subject(device, devices), "outcomes": [dataclasses.asdict(each) for each in verdict.outcomes]}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        logger.warning("the result of the device's check can't be cached in %s: %s", path, error.strerror)


def _path(device: torch.device, devices: int) -> Path:
    name = hashlib.blake2b(json.dumps(subject(device, devices)).encode(), digest_size=16).hexdigest()
    return default_cache() / "device-checks" / f"{name}.json"


def checks_of(device: torch.device, devices: int) -> list[str]:
    """The checks, in order. Steps come last: in them, ops that have failed use their twins."""
    if device.type == "cpu":
        return list(ops.PARTS)
    return [SAMPLER, *ops.PARTS, FUSED, REPLAY, *([ALL_REDUCE] if devices > 1 else [])]


def examine(
    device: torch.device, devices: int, worker: Sequence[str] = WORKER, seconds: float = SECONDS
) -> Iterator[Outcome]:
    """Yields every check's outcome as it becomes known. Each check has `seconds`."""
    left = checks_of(device, devices)
    failed: list[str] = []
    while left:
        job = Job(str(device), left, list(ops.with_dependents(failed)), devices)
        for outcome in _run_process(job, worker, seconds):
            yield outcome
            left = left[1:]
            if outcome.failed:
                failed.append(outcome.check)


def _run_process(job: Job, worker: Sequence[str], seconds: float) -> Iterator[Outcome]:
    """Yields the outcomes of one process: at least one, up to the first check that does not pass."""
    with _worker_process(job, worker) as (process, lines, errors):
        begun, number = False, 0
        while number < len(job.checks):
            try:
                line = lines.get(timeout=seconds if begun else BEGINNING_SECONDS)
            except queue.Empty:
                yield _cut_short(job.checks[number], begun, "it hangs")
                return
            if line is None:
                yield _cut_short(job.checks[number], begun, _in_words(process.wait(), errors))
                return
            message = json.loads(line)
            if message.pop("ready", False):
                begun = True
                continue
            outcome = Outcome(**message)
            yield outcome
            number += 1
            if outcome.status != "passed":
                return


def _cut_short(check: str, begun: bool, how: str) -> Outcome:
    """The outcome of a check whose process ended early. Before the process had begun, it is "not checked"."""
    if begun:
        return Outcome(check, "failed", how, 0.0)
    return Outcome(check, "not checked", f"its process did not begin: {how}", 0.0)


def _in_words(status: int, errors: IO[bytes]) -> str:
    """How a process ended, and the last line of its standard error."""
    errors.seek(0)
    message = errors.read().decode(errors="replace").strip().split("\n")[-1]
    how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return f"{how}{f' ({message})' if message else ''}"


@contextlib.contextmanager
def _worker_process(
    job: Job, worker: Sequence[str]
) -> Iterator[tuple[subprocess.Popen[str], queue.Queue[str | None], IO[bytes]]]:
    """Yields a worker, its output lines (None at the end), and its standard error; then kills its process group."""
    lines: queue.Queue[str | None] = queue.Queue()
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [*worker, json.dumps(job._asdict())],
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment_outside(),
            start_new_session=True,
        ) as process,
    ):

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        try:
            yield process, lines, errors
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            thread.join()
