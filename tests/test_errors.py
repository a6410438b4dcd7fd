"""What a command makes of each exception."""

from __future__ import annotations

import argparse
import signal

import pytest

from bertfast.command_line import Parser, run_command
from bertfast.errors import InputError, ProcessLost, Stopped, require_package


def status(error: BaseException | None) -> int:
    def command(options: argparse.Namespace) -> None:
        print("begun")
        if error is not None:
            raise error

    parser = Parser(prog="command")
    return run_command(parser, command, [])


@pytest.mark.parametrize(
    ("error", "expected", "line"),
    [
        (None, 0, ""),
        (InputError("--corpus x: no such file"), 2, "error: --corpus x: no such file\n"),
        (ProcessLost("lost rank 1"), 1, "error: lost rank 1\n"),
        (Stopped(signal.SIGTERM), 143, ""),
        (Stopped(signal.SIGINT), 130, ""),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (FileNotFoundError(2, "No such file or directory", "x"), 2, "error: x: No such file or directory\n"),
        (OSError(28, "No space left on device"), 2, "error: the disk: No space left on device\n"),
    ],
)
def test_one_line_and_a_status(error, expected, line, capsys):
    assert status(error) == expected
    assert capsys.readouterr() == ("begun\n", line)


@pytest.mark.parametrize(
    "error", [ValueError("shapes differ"), OSError(9, "Bad file descriptor"), RuntimeError("no rank")]
)
def test_a_programming_error_keeps_its_traceback(error):
    with pytest.raises(type(error)) as raised:
        status(error)
    assert raised.value is error


def test_a_stopped_run_is_an_interrupted_one_to_other_programs():
    """Code that catches every Exception must not take it for a failure and go on."""
    assert not isinstance(Stopped(signal.SIGTERM), Exception)
    with pytest.raises(KeyboardInterrupt):
        raise Stopped(signal.SIGTERM)


def test_a_missing_package_names_its_purpose():
    require_package("pytest", "testing")
    with pytest.raises(InputError, match=r"^reading x needs the package no_such_package: pip install no_such_package$"):
        require_package("no_such_package", "reading x")
