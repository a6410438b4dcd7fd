"""The exceptions that the commands report in one line."""

from importlib.util import find_spec


class InputError(Exception):
    """Some input cannot be used: a path, a file's content, a setting.

    The message is one line that names the thing and the way out. Commands print it and exit with status 2; programming
    errors are never wrapped in it and keep their traceback.
    """


class Stopped(KeyboardInterrupt):
    """A signal ended the run after a step; the path of its checkpoint has been logged.

    Commands exit with status 128 + `signal`, as shells do.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class ProcessLost(Exception):
    """Another process of the run ended or fell silent. The message is one line; commands exit with status 1."""


def require_package(name: str, purpose: str) -> None:
    """Raises InputError if a package that only `purpose` needs is missing."""
    if find_spec(name) is None:
        raise InputError(f"{purpose} needs the package {name}: pip install {name}")
