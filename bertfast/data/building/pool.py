"""The processes that read and tokenise a build's units: this one and others, one per core, at most eight."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from bertfast.data.readers.lines import OnRead
from bertfast.errors import ProcessLost

# Each uses up to 100 MB.
MOST_PROCESSES = 8
_POLL = 0.1  # seconds between progress updates

# work(job, index, on_read) does part `index` of a job.
Work = Callable[[Any, int, OnRead], None]


class Pool:
    """Does the parts of a job in several processes, of which this is one."""

    def __init__(self, job: object, size: int) -> None:
        """`job`: data shared by all parts, sent to each process once. `size`: the number of processes, this one too."""
        self._job = job
        self._executor: ProcessPoolExecutor | None = None
        if size > 1:
            # Spawned, since forking a process that has threads (torch's, the tokenizers library's) can hang.
            context = multiprocessing.get_context("spawn")
            # The resource tracker cleans up if this process is killed, but need not warn about what it finds.
            sys.warnoptions.append("ignore:resource_tracker")
            resource_tracker.ensure_running()
            sys.warnoptions.pop()
            self._read = context.Value("q")  # bytes read by all processes
            self._left = context.Array("q", 2)  # the parts that nobody has begun: begin, end
            alive, self._alive = context.Pipe(duplex=False)
            arguments = (job, self._read, self._left, alive)
            self._others = size - 1
            self._executor = ProcessPoolExecutor(self._others, context, _begin, arguments)

    def run(self, work: Work, indices: Sequence[int], on_read: OnRead) -> None:
        """Calls `work` for each index, and `on_read` with the number of bytes read since its last call.

        Raises what `work` raises, and ProcessLost if a process is killed.
        """
        if self._executor is None or not indices:
            for index in indices:
                work(self._job, index, on_read)
            return
        read = self._read.get_obj()
        reported = read.value

        def report(mine: int = 0) -> None:
            nonlocal reported
            now = read.value
            on_read(mine + now - reported)
            reported = now

        self._left[:] = [0, len(indices)]
        try:
            with _spawning():
                others = {self._executor.submit(_do, work, indices) for _ in range(self._others)}
            while others:
                # This process takes parts from the end: what comes first in order is done first.
                place = _take(self._left, last=True)
                if place is not None:
                    work(self._job, indices[place], report)
                done, others = wait(others, _POLL if place is None else 0, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                report()
        except BrokenProcessPool:
            raise ProcessLost(
                "a process that was building the corpus was killed, perhaps for want of memory: run again, and the "
                "build is resumed"
            ) from None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, error: type[BaseException] | None, *rest: object) -> None:
        if self._executor:
            if error:
                self._alive.close()  # ends the processes at once
            self._executor.shutdown(cancel_futures=True)
            self._alive.close()


@contextlib.contextmanager
def _spawning() -> Iterator[None]:
    """Starts processes inside this context with SIGINT blocked, and without importing the main module.

    Ctrl-C reaches every process of a terminal, and only this one is to handle it. The main module may be a user's
    script, which would run again, or a command, which imports torch.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- in the processes


_job: object = None
_read: Any = None
_left: Any = None


def _begin(job: object, read: Any, left: Any, alive: Connection) -> None:
    global _job, _read, _left
    _job, _read, _left = job, read, left
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_main, args=(alive,), daemon=True).start()


def _end_with_main(alive: Connection) -> None:
    """Ends this process when the main process closes its end of the pipe or dies."""
    with contextlib.suppress(EOFError, OSError):
        alive.recv_bytes()
    os._exit(1)


def _do(work: Work, indices: Sequence[int]) -> None:
    def on_read(size: int) -> None:
        with _read.get_lock():
            _read.value += size

    while (place := _take(_left)) is not None:
        work(_job, indices[place], on_read)


# ---- in all of them


def _take(left: Any, last: bool = False) -> int | None:
    """The place of the first, or last, part that nobody has begun. None: all are begun."""
    with left.get_lock():
        begin, end = left
        if begin == end:
            return None
        left[:] = [begin, end - 1] if last else [begin + 1, end]
        place: int = end - 1 if last else begin
        return place
