"""What the commands share: flags derived from the configuration classes, and how errors are reported."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import sys
from collections.abc import Callable, Container, Sequence
from typing import Any, NoReturn, TypeVar, get_type_hints

from bertfast.config import PRESET_FIELDS, flag
from bertfast.errors import InputError, ProcessLost, Stopped
from bertfast.log import show_messages

Config = TypeVar("Config")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports errors in one line, like any other bad input; each command has --quiet."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)
        self.add_argument("--quiet", action="store_true", help="show warnings only, and no progress")

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (--help lists the options)")


def add_settings(parser: argparse.ArgumentParser, config: type, title: str, only: Container[str] | None = None) -> None:
    """Adds a flag for each of the class's settings, or for those that `only` names.

    A flag that is not given leaves no attribute in the parsed namespace.
    """
    group = parser.add_argument_group(title)
    hints = get_type_hints(config)
    seen = {action.dest for action in parser._actions}
    for field in dataclasses.fields(config):
        if "help" not in field.metadata or field.name in seen or (only is not None and field.name not in only):
            continue
        default = "the preset's" if field.name in PRESET_FIELDS else field.default
        options: dict[str, Any] = {
            "dest": field.name,
            "default": argparse.SUPPRESS,
            "help": (field.metadata["help"] + f" (default: {default})" * (default is not None)).replace("%", "%%"),
        }
        if hints[field.name] in (bool, bool | None):
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["type"] = hints[field.name]
            options["choices"] = field.metadata["choices"]
            options["metavar"] = None if options["choices"] else hints[field.name].__name__.upper()
        group.add_argument(flag(config, field.name), **options)


def settings(config: type[Config], options: argparse.Namespace, **defaults: Any) -> Config:
    """A `config` from the given options; then `defaults`; then the class's own defaults."""
    names = {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    return config(**{name: value for name, value in {**defaults, **vars(options)}.items() if name in names})


def run_command(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], None],
    arguments: Sequence[str] | None,
) -> int:
    """Parses the arguments and runs the command; returns the exit status.

    An error that the user can fix is one line on standard error, and status 2.
    """
    try:
        options = parser.parse_args(arguments)
        show_messages(options.quiet)
        command(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ProcessLost as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        print(f"error: {error.filename or 'the disk'}: {error.strerror}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        return 128 + stopped.signal
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0
