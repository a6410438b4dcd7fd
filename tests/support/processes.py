"""Commands of bertfast in processes of their own, which can be made to fail at one certain instant.

They are forked from a server that has imported everything, so that one takes a second. What happens in them happens
through the operating system: SIGKILL, signals, limits.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from support import torchrun
from support.pictures import note_losses
from support.torchrun import HANGS

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["bertfast.pretrain", "bertfast.training.workers", "pytest"])

# In fp32, since the products of bf16 are compiled anew in each process.
TINY = [*torchrun.TINY, "--precision", "fp32"]


class Fault(NamedTuple):
    """What happens at the `call`-th call of `place`, a function "module:path.to.it"."""

    place: str
    call: int
    after: bool = False  # once it has returned, or before it begins
    what: int = signal.SIGKILL  # a signal that the process sends itself
    largest_file: int | None = None  # instead of a signal: writing beyond so many bytes fails from then on


class Done(NamedTuple):
    status: int  # see `status`
    out: str
    err: str


def start(
    arguments: Sequence[object],
    log: Path,
    *faults: Fault,
    module: str = "pretrain",
    ignored: Sequence[signal.Signals] = (),
) -> multiprocessing.process.BaseProcess:
    """The command line in a process; its standard output goes to `log`.out, standard error to `log`.err.

    It inherits the `ignored` signals as such.
    """
    settings = ([*map(str, arguments)], log, dict(os.environ), faults, ignored)
    process = SERVER.Process(target=_live, args=(module, *settings))
    process.start()
    return process


def run(arguments: Sequence[object], log: Path, *faults: Fault, module: str = "pretrain") -> Done:
    process = start(arguments, log, *faults, module=module)
    return Done(status(process), *(log.with_suffix(suffix).read_text() for suffix in (".out", ".err")))


def status(process: multiprocessing.process.BaseProcess) -> int:
    """How it ends, as a shell counts it: 128 + N where signal N ends it."""
    process.join(HANGS)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode if process.exitcode >= 0 else 128 - process.exitcode


@contextlib.contextmanager
def running(processes: Sequence[multiprocessing.process.BaseProcess]) -> Iterator[None]:
    """Starts the processes, and at the end kills those that are left."""
    try:
        for process in processes:
            process.start()
        yield
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()


def _live(
    module: str,
    arguments: list[str],
    log: Path,
    environment: dict[str, str],
    faults: Sequence[Fault],
    ignored: Sequence[signal.Signals],
) -> None:
    settle(log, environment)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    for fault in faults:
        _arm(fault)
    result = importlib.import_module(f"bertfast.{module}").main(arguments)
    sys.stdout.flush()
    sys.exit(result)


def settle(log: Path, environment: dict[str, str]) -> None:
    """Gives this process, a child of the server, the environment and the files for its output.

    It draws no pictures, as the tests' own process.
    """
    importlib.import_module("bertfast.training.run").draw_losses = note_losses
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # which the server may have looked up
    for descriptor, suffix in ((1, ".out"), (2, ".err")):
        file = os.open(log.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup, which has it ignored


def _arm(fault: Fault) -> None:
    module, _, path = fault.place.partition(":")
    *owners, name = path.split(".")
    owner = importlib.import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    function: Callable[..., object] = getattr(owner, name)
    calls = itertools.count(1)

    def armed(*arguments: object, **named: object) -> object:
        now = next(calls) == fault.call
        if now and not fault.after:
            _fail(fault)
        result = function(*arguments, **named)
        if now and fault.after:
            _fail(fault)
        return result

    setattr(owner, name, armed)


def _fail(fault: Fault) -> None:
    if fault.largest_file is None:
        os.kill(os.getpid(), fault.what)
    else:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.largest_file, hard))


def write_texts(path: Path, documents: int = 40) -> Path:
    """A little corpus: sentences of a few words, one a line."""
    words = [
        "the",
        "a",
        "crane",
        "driver",
        "came",
        "he",
        "just",
        "left",
        "is",
        "flying",
        "over",
        "water",
        "and",
        "then",
    ]
    lines = []
    for document in range(documents):
        for sentence in range(6):
            picks = [(document * 31 + sentence * 17 + i * i) % len(words) for i in range(3 + (document + sentence) % 8)]
            lines.append(" ".join(words[pick] for pick in picks) + " .")
        lines.append("")
    path.write_text("\n".join(lines))
    os.utime(path, (1, 1))  # old enough for its digest to be remembered, so that every run does the same
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, but run.json, which names the options of the last run, and times.jsonl."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    files = (path for path in files if path.name not in ("run.json", "times.jsonl"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
