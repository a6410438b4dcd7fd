"""Atomic file writes, and locks between processes."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bertfast.errors import InputError

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from torch import Tensor


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with a leading ~ or ~USER expanded; unchanged if there is no such home folder."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def partial_of(path: Path) -> Path:
    """Where a file or folder is made before it is renamed to `path`: beside it, hidden, under a name that no user has
    chosen, with the same suffix."""
    return path.with_name(f".{path.stem}.bertfast-partial{path.suffix}")


def named_file(name: str | Path) -> Path:
    """The file that a user names. Raises InputError if there is none, or something that can't be read twice."""
    path = expanded(name)
    if path.is_file():
        return path
    raise InputError(f"{path} is a folder, pipe or device: name a file" if path.exists() else f"no such file: {path}")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write to; at the end the file is synced to disk and renamed to `path`.

    If writing fails, the temporary file is removed and `path` stays as it was.
    """
    partial = partial_of(path)
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, doing: str, refusal: Callable[[str], Exception] | None = None) -> Iterator[None]:
    """Lets one process in at a time. The others wait, and log which process they wait for; `doing` says what it does.

    With `refusal` they raise what it makes of the holder's name, and do not wait. The lock is released when its holder
    exits, even if it crashes. Over NFS, Linux makes it a lock on the server.
    """
    while True:
        with path.open("a+", encoding="utf-8") as file:
            try:
                with _naming(path):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read() or "another process"
                if refusal:
                    raise refusal(holder) from None
                logger.info("waiting for %s, which is %s", holder, doing)
                with _naming(path):
                    fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_same_file(file.fileno(), path):  # the last holder has just removed it
                continue
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Writes a safetensors file atomically. Raises InputError if it can't be written."""
    # Imported here, since corpora are built and opened without torch.
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with whole_file(path) as partial:
        try:
            save_file(tensors, partial, metadata=metadata)
            partial.chmod(0o666 & ~_umask())  # safetensors makes files readable by their owner only
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} can't be written: {error}") from None


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def sync(path: Path) -> None:
    """Flushes a file's content, or a folder's entries, to disk, so that they survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with _naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Has an OSError name the path, which system calls on a descriptor don't know: some file systems have no locks."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise
