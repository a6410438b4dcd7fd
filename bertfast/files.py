"""Files that are either whole or not there, and locks between processes."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from bertfast.errors import InputError

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from torch import Tensor


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to; at the end the file takes `path`'s name, safely on the disk.

    Where writing fails, nothing is left behind and what stood at `path` before still does.
    """
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lets one process in at a time; others wait, and say so. The lock ends with its holder, however that ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another process to let go of %s", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def shared(path: Path) -> Iterator[None]:
    """Lets in any number of processes, but none beside one that is `locked` in there."""
    with path.open("a+") as file:  # over NFS one has to be able to read it to share it
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def attempted(path: Path) -> Iterator[IO[str] | None]:
    """The lock's file, where the lock could be had at once, to note its holder in; else None."""
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file, whole or not at all. Raises InputError where the disk refuses it."""
    # Here, since a corpus is built and opened without torch.
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with whole_file(path) as partial:
        try:
            save_file(tensors, partial, metadata=dict(metadata))
            partial.chmod(0o666 & ~_umask())  # safetensors leaves files to their owner alone
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} can't be written: {error}") from None


def _umask() -> int:
    """Which permissions new files lack; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def sync(path: Path) -> None:
    """Makes a file's content, or a folder's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
