"""Signals that end a run after a step, the same step on all ranks."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

from bertfast.distributed.process_group import handled_by
from bertfast.distributed.world import World


@contextlib.contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Records each SIGINT and SIGTERM in the list instead of interrupting the step; a second SIGINT interrupts.

    SIGHUP, which a closed terminal sends, counts as SIGTERM, unless it is ignored, as under nohup. Only the first of
    these counts: the shell and the kernel send a SIGHUP each, a scheduler and torchrun's agent a SIGTERM each.
    """
    noted: list[int] = []

    def note(number: int, frame: object) -> None:
        noted.append(signal.SIGTERM if number == signal.SIGHUP else number)
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    with handled_by(note, *numbers):
        yield noted


def to_flag(signals: list[int], overdue: bool, world: World) -> float:
    """A rank's summand in the sum over all ranks: its signal, and whether a checkpoint is overdue by its clock.

    One SIGTERM outweighs a SIGINT on every rank, and one overdue checkpoint outweighs all signals.
    """
    of_signal = 0 if not signals else world.size + 1 if signals[0] == signal.SIGTERM else 1
    return float(of_signal + overdue * (world.size + 1) ** 2)


def from_flags(flags: float, world: World) -> tuple[int | None, bool]:
    """Decodes the sum: the signal that ends the run, if any, and whether a checkpoint is overdue."""
    overdue, signals = divmod(flags, (world.size + 1) ** 2)
    return None if not signals else signal.SIGTERM if signals > world.size else signal.SIGINT, overdue > 0
