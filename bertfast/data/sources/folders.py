"""Finds the text files that a path or glob names, and those in folders."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bertfast.data.corpus import is_built
from bertfast.data.readers.kinds import KINDS, kind_of, suffix_of
from bertfast.data.readers.lines import COMPRESSED
from bertfast.errors import InputError
from bertfast.files import expanded

TRAINING_SPLITS = ("wiki.train.tokens", "wiki.train.raw", "train.txt")
HELD_OUT_SPLITS = ("wiki.valid.tokens", "wiki.test.tokens", "wiki.valid.raw", "wiki.test.raw", "valid.txt", "test.txt")

Refuse = Callable[[str], object]


def find_files(name: str, refuse: Refuse) -> tuple[list[Path], str]:
    """The files of a path or glob, sorted, and a note about the files left out, if any.

    `refuse` is called with a line about each broken link, unreadable folder and special file. Raises
    `InputError` if there is no such path, if it can't be reached, or if there is no text file in it.
    """
    path = expanded(name)
    try:
        return _find(path, name, refuse)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _find(path: Path, name: str, refuse: Refuse) -> tuple[list[Path], str]:
    if path.is_dir():
        if made := _made_by_bertfast(path):
            raise InputError(f"{path} is {made}, not text: name the text")
        return _files_of(path, refuse)
    if path.is_file():
        return [path], ""
    if path.exists():
        raise InputError(f"{path} is neither a file nor a folder: give - and the text on standard input")
    if path.is_symlink():
        raise InputError(f"{path} is a symbolic link that leads nowhere: {path.readlink()}")
    if not any(character in name for character in "*?["):
        raise InputError(f"no such file or folder: {path}")
    matches = [Path(match) for match in glob.glob(str(path), recursive=True)]  # noqa: PTH207 (pathlib's doesn't take absolute patterns)
    if not matches:
        raise InputError(f"nothing matches {path}")
    search = _Search(refuse, suffix=path.suffix)
    for match in matches:
        search.add(match)
    return search.result(str(path))


def _files_of(folder: Path, refuse: Refuse) -> tuple[list[Path], str]:
    for name in TRAINING_SPLITS:
        held_out = [other for other in HELD_OUT_SPLITS if (folder / other).is_file()]
        if (folder / name).is_file() and held_out:
            return [folder / name], f": the training split {name} alone, without {' and '.join(held_out)}"
    search = _Search(refuse)
    search.add_folder(folder, frozenset())
    return search.result(str(folder))


class _Search:
    """Collects the text files under some paths. Follows symbolic links; leaves out hidden files and folders."""

    def __init__(self, refuse: Refuse, suffix: str = "") -> None:
        """`suffix`: of files to accept besides those in `KINDS`."""
        self._refuse = refuse
        self._suffix = suffix
        self._files: set[Path] = set()
        self._others: Counter[str] = Counter()
        self._made: dict[Path, str] = {}

    def result(self, where: str) -> tuple[list[Path], str]:
        """The files and the note that `find_files` returns; `where` is the place that a message names."""
        others = sum(self._others.values())
        notes = [f"{made} left out: {path}" for path, made in sorted(self._made.items())]
        if others:
            notes.insert(
                0, f"{others} file{'s' * (others > 1)} of other kinds left out: {' '.join(sorted(self._others))}"
            )
        note = "; ".join(notes)
        if not self._files:
            raise InputError(
                f"no text files in {where}{f' ({note})' if note else ''}: bertfast reads {', '.join(KINDS)}, "
                f"each also with {' or '.join(COMPRESSED)}"
            )
        return sorted(self._files), f": {note}" if note else ""

    def add_folder(self, folder: Path, above: frozenset[str]) -> None:
        """Adds a folder's files; `above`: the real paths of the folders that contain it."""
        real = os.path.realpath(folder)
        if real in above:
            self._refuse(f"{folder} is a symbolic link to a folder around it, {real}: remove the link")
            return
        for path in sorted(folder.iterdir()):
            if not path.name.startswith("."):
                self.add(path, above | {real})

    def add(self, path: Path, above: frozenset[str] = frozenset()) -> None:
        try:
            self._add(path, above)
        except OSError as error:
            self._refuse(f"cannot read {path}: {error.strerror}")

    def _add(self, path: Path, above: frozenset[str]) -> None:
        if path.is_dir() and (made := _made_by_bertfast(path)):
            self._made[path] = made
        elif path.is_dir():
            self.add_folder(path, above)
        elif not (kind_of(path) or (self._suffix and path.name.endswith(self._suffix))):
            self._others[suffix_of(path) or path.name] += 1
        elif path.is_file():
            self._files.add(path)
        elif path.is_symlink():
            self._refuse(f"{path} is a symbolic link that leads nowhere: {path.readlink()}")
        else:
            self._refuse(f"{path} is neither a file nor a folder")


def _made_by_bertfast(folder: Path) -> str:
    """What the folder is, if bertfast writes it: a run beside its text is no text. Else an empty string."""
    if is_built(folder):
        return "a built corpus"
    return "a run" if all((folder / name).is_file() for name in ("run.json", "metrics.jsonl")) else ""
