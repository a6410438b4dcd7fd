"""The exceptions that the commands report in one line."""

import errno
from importlib.util import find_spec

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def in_one_line(error: Exception) -> str | None:
    """What a command prints for an error that the user can fix; None for a programming error."""
    if isinstance(error, InputError):
        return str(error)
    # torch raises RuntimeError for lack of memory, of a CPU's and of a GPU's.
    lacks_memory = any(words in str(error) for words in ("can't allocate memory", "out of memory"))
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and lacks_memory):
        return "there is too little memory for this: choose a smaller batch or model"
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _FULL):
        return f"{error.filename or 'the disk'}: {error.strerror}"
    return None


def require_package(name: str, purpose: str) -> None:
    """Raises InputError if a package that only `purpose` needs is missing."""
    if find_spec(name) is None:
        raise InputError(f"{purpose} needs the package {name}: pip install {name}")
