"""What the commands share: flags derived from the configuration classes, and how errors are reported."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import select
import signal
import sys
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, NoReturn, TextIO, TypeVar, get_type_hints

from bertfast.config import flag
from bertfast.errors import InputError, ProcessLost, Stopped, in_one_line
from bertfast.files import expanded
from bertfast.log import show_messages, standard_error

Config = TypeVar("Config")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports errors in one line, like any other bad input; each command has --quiet."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)
        # Without a default, which a subcommand's parser would write over what was given before its name.
        self.add_argument(
            "--quiet", action="store_true", default=argparse.SUPPRESS, help="show warnings only, and no progress"
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (--help lists the options)")


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        required=True,
        metavar="DIR",
        type=expanded,
        help="model folder, written by bertfast.pretrain or transformers",
    )


def add_settings(
    parser: argparse.ArgumentParser,
    config: type,
    title: str,
    only: Container[str] | None = None,
    by_preset: Container[str] = (),
) -> None:
    """Adds a flag for each of the class's settings, or for those that `only` names.

    A flag that is not given leaves no attribute in the parsed namespace. Settings in `by_preset` have the default of
    the preset.
    """
    group = parser.add_argument_group(title)
    hints = get_type_hints(config)
    seen = {action.dest for action in parser._actions}
    for field in dataclasses.fields(config):
        if "help" not in field.metadata or field.name in seen or (only is not None and field.name not in only):
            continue
        default = "the preset's" if field.name in by_preset else field.default
        options: dict[str, Any] = {
            "dest": field.name,
            "default": argparse.SUPPRESS,
            "help": (field.metadata["help"] + f" (default: {default})" * (default is not None)).replace("%", "%%"),
        }
        if hints[field.name] in (bool, bool | None):
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["type"] = hints[field.name]
            options["choices"] = field.metadata.get("choices")
            options["metavar"] = None if options["choices"] else hints[field.name].__name__.upper()
        group.add_argument(flag(config, field.name), **options)


def settings(config: type[Config], options: argparse.Namespace, **defaults: Any) -> Config:
    """A `config` with the values that its flags have in `options`, else those in `defaults`, else its own defaults."""
    flags = {field.name for field in dataclasses.fields(config) if "help" in field.metadata}  # type: ignore[arg-type]
    return config(**defaults | {name: value for name, value in vars(options).items() if name in flags})


def first_given(options: argparse.Namespace, config: type, names: Iterable[str]) -> str | None:
    """The flag of the first of the class's settings `names` that the options give; None if they give none."""
    return next((flag(config, name) for name in names if name in options), None)


def run_command(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], None],
    arguments: Sequence[str] | None,
) -> int:
    """Parses the arguments and runs the command; returns the exit status.

    An error that the user can fix is one line on standard error, and status 2. If nobody reads the output any more
    (`| head`), the command ends silently, with the status of a process that SIGPIPE killed.
    """
    with contextlib.suppress(AttributeError):  # a notebook's stdout has no encoding to set
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        options = parser.parse_args(_checked(sys.argv[1:] if arguments is None else arguments))
        show_messages("quiet" in options)
        command(options)
        print(end="", flush=True)
    except SystemExit:  # after --help
        _drop_unwritable()
        raise
    except ProcessLost as error:
        _report(f"error: {error}")
        return 1
    except BrokenPipeError:
        if not any(map(_nobody_reads, (sys.stdout, sys.stderr))):
            raise
        _drop_unwritable()
        return 128 + signal.SIGPIPE
    except Exception as error:
        if (line := in_one_line(error)) is None:
            raise
        _drop_unwritable()
        _report(f"error: {line}")
        return 2
    except Stopped as stopped:
        return 128 + stopped.signal
    except KeyboardInterrupt:
        _report("interrupted")
        return 130
    return 0


def _report(line: str) -> None:
    standard_error.write(f"{line}\n")


def _checked(arguments: Sequence[str]) -> Sequence[str]:
    """The arguments. Raises InputError for one that is not UTF-8, or that the locale's encoding can't decode.

    Python decodes such an argument to a string with lone surrogates, which few functions take.
    """
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            encoded = argument.encode("utf-8", "surrogateescape")
            shown = encoded.decode("utf-8", "backslashreplace")
            try:
                encoded.decode("utf-8")
            except UnicodeDecodeError:
                raise InputError(f"the argument '{shown}' is not UTF-8: convert it, or rename the file") from None
            encoding = sys.getfilesystemencoding()
            raise InputError(
                f"the argument '{shown}' is UTF-8, but the locale's encoding is {encoding}: set PYTHONUTF8=1"
            )
    return arguments


def _nobody_reads(stream: TextIO | None) -> bool:
    """Whether the stream is a pipe that nobody reads any more."""
    if stream is None:
        return False
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # a stream in memory has no descriptor, a closed one neither
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _drop_unwritable() -> None:
    """Drops output that could not be written, so that Python does not try again when it exits."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
