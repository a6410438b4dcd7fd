"""Finds the files of a source by its name, and detects the form of each."""

from __future__ import annotations

import logging
import os
import platform
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bertfast.config import CorpusConfig
from bertfast.data.sentences import LANGUAGES, rules_of
from bertfast.data.sources.embedded import library_files
from bertfast.data.sources.folders import find_files
from bertfast.data.sources.hub_datasets import PREFIX, find_dataset
from bertfast.data.sources.standard_input import keep_standard_input
from bertfast.data.sources.wikitext import NAMES, find_wikitext
from bertfast.data.text_file import TextFile
from bertfast.data.text_form import detect
from bertfast.errors import InputError
from bertfast.files import expanded

logger = logging.getLogger(__name__)

SOURCES = (
    "a file, folder or glob of text, HTML, JSON, JSON lines, CSV, TSV or parquet, also .gz or .zst; - for standard "
    "input; hf:NAME[/CONFIG][:SPLIT]; wikitext-2 or wikitext-103"
)
"""What a source may be, for the commands' --help."""


@dataclass(frozen=True)
class Source:
    """The files of one `--corpus`."""

    files: tuple[TextFile, ...]
    """In the order in which they are read."""
    description: str
    """A line for the log: the name, and the kinds of its files."""
    name: str
    """Its name, without the folders that contain it."""


def find_source(name: str | os.PathLike[str], config: CorpusConfig, cache: Path) -> Source:
    """The files that `name` stands for, and the form of each.

    `name`: a file, a folder, a glob, `-` for standard input, `hf:NAME[/CONFIG][:SPLIT]`, or WikiText by its name. The
    beginning of each file is read. Raises `InputError` if there is no such source or nothing to read in it, and, unless
    `config.skip_bad_files`, for the first file that cannot be read.
    """
    skipped: list[str] = []

    def refuse(line: str) -> None:
        if not config.skip_bad_files:
            raise InputError(line)
        skipped.append(line)

    name = str(name)
    if not name:
        raise InputError("the name of a text is empty: name a file or a folder (. for this one)")
    if name == "-":
        paths, where = [keep_standard_input(cache)], "standard input"
        title = where
    elif name.startswith(PREFIX):
        path, title = find_dataset(name, config.text_column, cache)
        paths, where = [path], name
    else:
        place = str(find_wikitext(name, cache)) if name in NAMES else name
        paths, note = find_files(place, refuse)
        where = f"{expanded(place)}{note}"
        title = name if name in NAMES else last_name(expanded(name))
    files = []
    for path in paths:
        try:
            files.append(detect(path, config, alone=len(paths) == 1))
        except InputError as error:
            refuse(str(error))
    if config.language not in LANGUAGES and any(file.form in ("paragraphs", "plain") for file in files):
        logger.info("--language %s: sentences end by the rules for %s", config.language, rules_of(config.language))
    if not files:
        raise InputError(f"no file of {where} can be read: {skipped[0]}")
    left_out = f"; {len(skipped)} bad left out, the first: {skipped[0]}" if skipped else ""
    return Source(tuple(files), f"{where} ({_forms(files)}{left_out})", title)


def last_name(path: Path) -> str:
    """A path's last component, even if it is given as `.` or `..`."""
    return path.name if path.name not in ("", "..") else path.resolve().name


def _forms(files: list[TextFile]) -> str:
    """The kinds and forms of the files, with the number of files of each."""
    names = [file.form if file.kind == "text" else f"{file.kind}, {file.form}" for file in files]
    if len(files) == 1:
        return names[0]
    counts = [f"{count} {'file' if count == 1 else 'files'}: {name}" for name, count in Counter(names).items()]
    if empty := sum(1 for file in files if file.path.stat().st_size == 0):
        counts.append(f"{empty} of them empty")
    return "; ".join(counts)


def embedded_source() -> Source:
    """The default text: the documentation in CPython's standard library."""
    files = tuple(TextFile(path, "python") for path in library_files())
    title = f"the prose of Python {platform.python_version()}'s own documentation"
    return Source(files, title, title)
