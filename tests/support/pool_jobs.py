"""What processes of a pool can be asked to do. They import this module, so it imports little."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import sys
from pathlib import Path

from bertfast.data.readers.lines import OnRead
from bertfast.errors import InputError


def in_another(fifo: Path) -> bool:
    """Whether this is another process than the pool's first. That one waits here until another has been here."""
    with fifo.open("r+b", buffering=0) as been_here:
        if multiprocessing.parent_process():
            been_here.write(b"x")
            return True
        select.select([been_here], [], [])
        return False


def leave_a_file(fifo: Path, index: int, on_read: OnRead) -> None:
    in_another(fifo)
    on_read(3)
    (fifo.parent / f"{index}").write_text(f"{os.getpid()}")


def fail(job: object, index: int, on_read: OnRead) -> None:
    raise InputError(f"part {index} is bad")


def die(fifo: Path, index: int, on_read: OnRead) -> None:
    if in_another(fifo):
        os.kill(os.getpid(), signal.SIGKILL)


def look_for_torch(fifo: Path, index: int, on_read: OnRead) -> None:
    if in_another(fifo):
        on_read(1 + 1000 * ("torch" in sys.modules))


def look_for_ctrl_c(fifo: Path, index: int, on_read: OnRead) -> None:
    if in_another(fifo):
        on_read(1 + 1000 * (signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())))


def stay(fifo: Path, index: int, on_read: OnRead) -> None:
    """Holds the fifo open until the process ends."""
    with fifo.open("wb", buffering=0) as out:
        out.write(b"x")
        signal.pause()
