"""Tasks that any number of processes do together, on one machine or over a shared folder.

A task makes one file, whole or not at all. Whoever wants it made claims it, by a lock that ends with its holder, or
waits for who has. So a process that is killed costs the task that it was at, which another then takes over.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertfast.data.readers.lines import OnRead
from bertfast.files import attempted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What makes the file `made`; the claim to it is the lock on `claim`."""

    made: Path
    claim: Path
    make: Callable[[OnRead], None]
    """Is told whom to tell of every block that it reads."""
    size: int = 0
    """Bytes that it reads, for who tells how far all is."""

    @property
    def done(self) -> bool:
        return self.made.exists()


def finish(tasks: Sequence[Task], who: str, at: Callable[[int], object]) -> None:
    """Returns when all tasks are done, by this process or others.

    `who`: what others are told that wait for this process; those of the same name aren't told. `at` is called with the
    bytes that are done.
    """
    total = sum(task.size for task in tasks)
    left = list(tasks)
    told = False
    while left := [task for task in left if not task.done]:
        done = total - sum(task.size for task in left)
        at(done)
        if any(_do(task, who, done, at) for task in left):
            continue
        holder = left[0].claim.read_text(encoding="utf-8")
        if holder != who and not told:
            logger.info(
                "waiting for %s, which is at %s; %s are left", holder or "another process", left[0].made.name, len(left)
            )
            told = True
        with left[0].claim.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
    at(total)


def _do(task: Task, who: str, done: int, at: Callable[[int], object]) -> bool:
    """Whether the task was free, and now is done."""
    with attempted(task.claim) as lock:
        if lock is None:
            return False
        if not task.done:
            lock.truncate(0)
            lock.write(who)
            lock.flush()
            read = done

            def on_read(size: int) -> None:
                nonlocal read
                read += size
                at(read)

            task.make(on_read)
        return True
