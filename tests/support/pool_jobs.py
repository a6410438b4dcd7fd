"""What processes of a pool can be asked to do. They import this module, so it imports little."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path

from bertfast.data.readers.lines import OnRead
from bertfast.errors import InputError


def leave_a_file(folder: Path, index: int, on_read: OnRead) -> None:
    on_read(3)
    (folder / f"{index}").write_text(f"{os.getpid()}")


def fail(job: object, index: int, on_read: OnRead) -> None:
    raise InputError(f"part {index} is bad")


def die(job: object, index: int, on_read: OnRead) -> None:
    if multiprocessing.parent_process():
        os.kill(os.getpid(), signal.SIGKILL)


def look_for_torch(job: object, index: int, on_read: OnRead) -> None:
    if multiprocessing.parent_process():
        on_read(1 + 1000 * ("torch" in sys.modules))


def look_for_ctrl_c(job: object, index: int, on_read: OnRead) -> None:
    if multiprocessing.parent_process():
        on_read(1 + 1000 * (signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())))


def stay(fifo: Path, index: int, on_read: OnRead) -> None:
    """Holds the fifo open until the process ends."""
    with fifo.open("wb", buffering=0) as out:
        out.write(b"x")
        signal.pause()
