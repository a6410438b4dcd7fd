"""Signals that a run notes, and what the ranks' flags add up to."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Iterator
from signal import SIGHUP, SIGINT, SIGTERM

import pytest
import torch
from support.small_run import CPU

from bertfast.distributed.world import World
from bertfast.training.signals import from_flags, noted_signals, to_flag

NUMBERS = (SIGINT, SIGTERM, SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[list[object]]:
    """The handlers that a program has when a shell starts it, whatever the tests run under."""
    before = [signal.getsignal(number) for number in NUMBERS]
    signal.signal(SIGINT, signal.default_int_handler)
    signal.signal(SIGTERM, signal.SIG_DFL)
    signal.signal(SIGHUP, signal.SIG_DFL)
    yield [signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL]
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)


def now() -> list[object]:
    return [signal.getsignal(number) for number in NUMBERS]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([], []),
        ([SIGINT], [SIGINT]),
        ([SIGTERM], [SIGTERM]),
        ([SIGHUP], [SIGTERM]),
        ([SIGHUP, SIGHUP, SIGTERM, SIGTERM], [SIGTERM] * 4),
        ([SIGTERM, SIGINT], [SIGTERM, SIGINT]),
    ],
)
def test_signals_are_noted(handlers: list[object], sent: list[int], expected: list[int]) -> None:
    """And the handlers are restored, even after an error."""
    with pytest.raises(ZeroDivisionError), noted_signals() as noted:
        for number in sent:
            signal.raise_signal(number)
        raise ZeroDivisionError
    assert noted == expected
    assert now() == handlers


def test_a_second_ctrl_c_interrupts(handlers: list[object]) -> None:
    with pytest.raises(KeyboardInterrupt), noted_signals() as noted:
        signal.raise_signal(SIGINT)
        signal.raise_signal(SIGTERM)
        signal.raise_signal(SIGINT)
    assert noted == [SIGINT, SIGTERM]
    assert now() == handlers


def test_a_hangup_that_is_ignored_stays_so() -> None:
    signal.signal(SIGHUP, signal.SIG_IGN)
    with noted_signals() as noted:
        signal.raise_signal(SIGHUP)
        assert signal.getsignal(SIGHUP) == signal.SIG_IGN
    assert noted == []
    assert signal.getsignal(SIGHUP) == signal.SIG_IGN


def test_an_inner_context_keeps_its_signals_to_itself(handlers: list[object]) -> None:
    """A stopped run writes its checkpoint in one."""
    with noted_signals() as outer:
        signal.raise_signal(SIGTERM)
        with noted_signals() as inner:
            signal.raise_signal(SIGINT)
        signal.raise_signal(SIGINT)
    assert (outer, inner) == ([SIGTERM, SIGINT], [SIGINT])
    assert now() == handlers


def test_another_thread_notes_nothing(handlers: list[object]) -> None:
    """Only the main thread may handle signals; a program may train in another."""
    found = []

    def run() -> None:
        with noted_signals() as noted:
            found.append((noted, now()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [([], handlers)]


def decoded(of_ranks: list[tuple[list[int], bool]]) -> tuple[int | None, bool]:
    """What every rank learns from the signals and clocks of all. Flags are summed in float32, as the losses are."""
    world = World(0, len(of_ranks), [CPU] * len(of_ranks), [CPU], False, 1)
    flags = [to_flag(signals, overdue, world) for signals, overdue in of_ranks]
    return from_flags(sum(torch.tensor(flags, dtype=torch.float32)).item(), world)


def expected(of_ranks: list[tuple[list[int], bool]]) -> tuple[int | None, bool]:
    first = {signals[0] for signals, _ in of_ranks if signals}
    return SIGTERM if SIGTERM in first else SIGINT if first else None, any(overdue for _, overdue in of_ranks)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_combination_of_ranks(size: int) -> None:
    of_one = list(itertools.product([[], [SIGINT], [SIGTERM], [SIGINT, SIGTERM]], [False, True]))
    for of_ranks in itertools.product(of_one, repeat=size):
        assert decoded(list(of_ranks)) == expected(list(of_ranks)), of_ranks


@pytest.mark.parametrize("size", [8, 253])
def test_many_ranks(size: int) -> None:
    """One rank unlike the others, or all alike. For up to 253 ranks, float32 holds the sum exactly."""
    of_one = list(itertools.product([[], [SIGINT], [SIGTERM]], [False, True]))
    for one, others in itertools.product(of_one, repeat=2):
        of_ranks = [one, *[others] * (size - 1)]
        assert decoded(of_ranks) == expected(of_ranks), (one, others)
