"""The folder that a run writes to: which process owns it, and whether its run is resumed."""

from __future__ import annotations

import contextlib
import datetime
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bertfast.distributed.peers import peers
from bertfast.errors import InputError
from bertfast.files import locked
from bertfast.torchrun import is_main_process, under_torchrun

LOCK = ".lock"


class RunDirectory(NamedTuple):
    path: Path | None = None
    """None: the run writes nothing."""
    resumed: bool = False


def choose_path(out: Path | None, resume: bool) -> Path:
    """The folder to write: --out, the one that torchrun's job used before a restart, or a new one in runs/.

    Only rank 0 writes it; the path on other ranks doesn't matter, nor whether they can see it.
    """
    if out is None and resume:
        raise InputError("--resume needs --out, the run directory to continue")
    before = peers().previous_run_directory() if under_torchrun() else None
    return out or before or _fresh_folder()


def _fresh_folder() -> Path:
    name = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(1)))
    return next(Path("runs") / candidate for candidate in candidates if not (Path("runs") / candidate).exists())


@contextlib.contextmanager
def claimed(path: Path | None, resume: bool) -> Iterator[RunDirectory]:
    """Locks the run directory within the context. The lock ends with the process, however that ends.

    With torchrun, the main process claims it for all ranks, and resumes a run that torchrun has restarted. Raises
    InputError if another process holds it, or if writing would destroy something: a file, or a used folder without
    `resume`.
    """
    if path is None or not is_main_process():
        yield RunDirectory(path, resume)
        return
    restarted = under_torchrun() and peers().is_restart(path)
    if restarted and not path.is_dir():
        raise InputError(f"--out {path}, where this run was begun, isn't here: name a folder that all hosts share")
    if path.exists() and not path.is_dir():
        raise InputError(f"--out {path} is a file: name a folder")
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)

    def in_use(holder: str) -> InputError:
        return InputError(f"--out {path} is in use by {holder}: wait for it, or name another folder")

    with locked(path / LOCK, "writing there", in_use):
        try:
            _check_unused(path, resume or restarted)
            if under_torchrun():
                peers().record_start(path)
            yield RunDirectory(path, resume or restarted)
        finally:
            if new and _is_unused(path):  # the run wrote nothing
                (path / LOCK).unlink()
                with contextlib.suppress(OSError):  # another run uses a parent folder
                    for folder in new:
                        folder.rmdir()


def _is_unused(path: Path) -> bool:
    return all(entry.name == LOCK for entry in path.iterdir())


def _check_unused(path: Path, resume: bool) -> None:
    if _is_unused(path):
        return
    if not resume:
        raise InputError(f"--out {path} already holds files: name another folder, or --resume to continue its run")
    if not (path / "metrics.jsonl").is_file():
        raise InputError(f"--out {path} holds files, but no run to resume (no metrics.jsonl): name another folder")
