"""What the commands show on standard error. reporting/test_progress.py has progress itself."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from pathlib import Path

import pytest
from support.messages import Terminal

from bertfast.log import progress_bar, show_messages, shows_bars, shows_progress, standard_error

pytestmark = pytest.mark.usefixtures("restored_logger")
logger = logging.getLogger("bertfast.some.module")


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Becomes standard error; not in a fixture, since pytest captures standard error anew for the test."""
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    return shown


def log_all() -> None:
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logger.log(level, "at %s", level)


EVERYTHING = "at 20\nwarning: at 30\nerror: at 40\n"


@pytest.mark.parametrize(("quiet", "expected"), [(False, EVERYTHING), (True, "warning: at 30\nerror: at 40\n")])
def test_levels(monkeypatch, quiet, expected):
    """A program that runs several commands shows each message once."""
    shown = terminal(monkeypatch)
    show_messages(not quiet)
    show_messages(quiet)
    log_all()
    assert shown.getvalue() == expected
    assert shows_progress() is shows_bars() is not quiet


def test_other_ranks_are_silent(monkeypatch):
    shown = terminal(monkeypatch)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    show_messages()
    log_all()
    progress_bar(total=3).close()
    assert shown.getvalue() == ""
    assert not shows_progress()


def test_messages_go_to_standard_error_as_it_is_at_the_moment(monkeypatch):
    show_messages()
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        logger.info("a message")
        assert stream.getvalue() == "a message\n"
        assert standard_error.isatty() is shows_bars() is isinstance(stream, Terminal)


def test_a_message_is_above_the_bar(monkeypatch):
    """The bar is erased, and drawn again below it."""
    shown = terminal(monkeypatch)
    show_messages()
    with progress_bar(total=3, desc="texts", mininterval=0) as bar:
        logger.info("a message")
        bar.update(3)
    *_, before, after = shown.getvalue().split("a message\n")
    assert before.endswith("\r") and before.split("\r")[-2].strip() == ""
    assert "texts" in after.split("\r")[1] and "3/3" in after


@pytest.mark.parametrize(
    ("stream", "quiet", "disable"), [(io.StringIO, False, False), (Terminal, True, False), (Terminal, False, True)]
)
def test_no_bar(monkeypatch, stream, quiet, disable):
    monkeypatch.setattr(sys, "stderr", stream())
    show_messages(quiet)
    with progress_bar(range(3), disable=disable) as bar:
        assert list(bar) == [0, 1, 2]
    assert sys.stderr.getvalue() == ""


def nobody_reads() -> io.TextIOBase:
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "w")


def full_disk() -> io.TextIOBase:
    return Path("/dev/full").open("w")


def closed() -> io.TextIOBase:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [nobody_reads, full_disk, closed, lambda: None])
def test_a_message_that_nobody_can_read_ends_nothing(monkeypatch, stream):
    broken = stream()
    monkeypatch.setattr(sys, "stderr", broken)
    show_messages()
    assert not standard_error.isatty()
    log_all()
    log_all()
    assert not shows_bars()
    progress_bar(range(3)).close()
    if sys.stderr is not None:
        print("what the interpreter's end would write", file=sys.stderr, flush=True)
        sys.stderr.close()
    with contextlib.suppress(OSError, AttributeError):
        broken.close()
