"""Progress: a bar in a terminal, lines elsewhere, nothing where it is not wanted; and no reader is needed."""

import io
import logging
import sys

import pytest

from bertfast import log
from bertfast.log import show_messages
from bertfast.reporting import progress
from bertfast.reporting.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Full(io.StringIO):
    """A pipe whose reader is gone, or a full disk."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


@pytest.fixture(autouse=True)
def logger_as_it_was():
    logger = logging.getLogger("bertfast")
    level, handlers = logger.level, logger.handlers
    yield
    logger.handlers = handlers
    logger.setLevel(level)


def told(monkeypatch, stream, quiet=False, log_every=0, steps=10):
    monkeypatch.setattr(sys, "stderr", stream)
    show_messages(quiet)
    bar = Progress(steps, 0, log_every)
    for step in range(steps):
        bar.advance(f"MLM {step}.5")
    bar.close()
    return stream.getvalue()


def test_a_terminal_has_a_bar(monkeypatch):
    shown = told(monkeypatch, Terminal())
    assert "\r" in shown
    assert "10/10" in shown
    assert "step 10 of 10" not in shown


def test_elsewhere_lines_come_by_steps_or_by_time(monkeypatch):
    assert told(monkeypatch, io.StringIO(), log_every=4) == "step 4 of 10: MLM 3.5\nstep 8 of 10: MLM 7.5\n"
    assert told(monkeypatch, io.StringIO()) == "step 10 of 10: MLM 9.5\n"
    now = iter(range(0, 1000, 11))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    assert [line.split()[1] for line in told(monkeypatch, io.StringIO()).splitlines()] == ["3", "6", "9", "10"]


def test_quiet(monkeypatch):
    assert told(monkeypatch, Terminal(), quiet=True) == ""
    assert told(monkeypatch, io.StringIO(), quiet=True, log_every=1) == ""


@pytest.mark.parametrize("stream", [Full(), None])
def test_a_reader_that_is_gone_ends_nothing(monkeypatch, stream):
    """Afterwards nothing is left that would fail as the interpreter ends."""
    monkeypatch.setattr(sys, "stderr", stream)
    show_messages()
    bar = Progress(3, 0, 1)
    for _ in range(3):
        bar.advance("MLM 1.0")
    bar.close()
    log.standard_error.flush()
    if stream is not None:
        sys.stderr.flush()
