"""Progress: a bar in a terminal, lines elsewhere, nothing with --quiet; a failing stream ends nothing."""

import io
import sys

import pytest
from support.messages import Terminal

from bertfast import log
from bertfast.log import show_messages
from bertfast.reporting import progress
from bertfast.reporting.progress import Progress

pytestmark = pytest.mark.usefixtures("restored_logger")


class Full(io.StringIO):
    """A pipe whose reader is gone, or a full disk."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def shown(monkeypatch, stream, quiet=False, log_every=0, steps=10):
    monkeypatch.setattr(sys, "stderr", stream)
    show_messages(quiet)
    bar = Progress(steps, 0, log_every)
    for step in range(steps):
        bar.advance(f"MLM {step}.5")
    bar.close()
    return stream.getvalue()


def test_a_terminal_has_a_bar(monkeypatch):
    output = shown(monkeypatch, Terminal())
    assert "\r" in output
    assert "10/10" in output
    assert "step 10 of 10" not in output


def test_without_a_terminal_lines_come_by_steps_or_by_time(monkeypatch):
    assert shown(monkeypatch, io.StringIO(), log_every=4) == "step 4 of 10: MLM 3.5\nstep 8 of 10: MLM 7.5\n"
    assert shown(monkeypatch, io.StringIO()) == "step 10 of 10: MLM 9.5\n"
    now = iter(range(0, 1000, 11))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    assert [line.split()[1] for line in shown(monkeypatch, io.StringIO()).splitlines()] == ["3", "6", "9", "10"]


def test_quiet(monkeypatch):
    assert shown(monkeypatch, Terminal(), quiet=True) == ""
    assert shown(monkeypatch, io.StringIO(), quiet=True, log_every=1) == ""


@pytest.mark.parametrize("stream", [Full(), None])
def test_a_stream_that_fails_ends_nothing(monkeypatch, stream):
    """Nothing stays in a buffer that would fail when the interpreter exits."""
    monkeypatch.setattr(sys, "stderr", stream)
    show_messages()
    bar = Progress(3, 0, 1)
    for _ in range(3):
        bar.advance("MLM 1.0")
    bar.close()
    log.standard_error.flush()
    if stream is not None:
        sys.stderr.flush()
