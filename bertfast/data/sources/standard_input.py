"""Standard input as a source: since text is read more than once, it is stored in the cache, named by its hash."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

from bertfast.data.readers.lines import BLOCK_BYTES, MAX_RECORD
from bertfast.errors import InputError
from bertfast.files import locked, whole_file
from bertfast.log import progress_bar
from bertfast.torchrun import world_size

_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*(\[\s*\{|\{)")


def keep_standard_input(cache: Path) -> Path:
    """Stores standard input in the cache, and returns the file.

    Its suffix is .jsonl if the text begins with a JSON object, .json if it begins with an array of objects, else .txt.
    Raises `InputError` if there is nothing to read, or if several workers would each read a part.
    """
    if world_size() > 1:
        raise InputError(
            "several workers can't share standard input: build a corpus from it first, with "
            "python -m bertfast.corpus build - --out DIR, and give --corpus DIR"
        )
    if sys.stdin is None or sys.stdin.closed:
        raise InputError("there is no standard input")
    folder = cache / "texts" / "standard-input"
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.blake2b(digest_size=16)
    incoming = folder / "incoming"
    with (
        locked(folder / "lock", "reading its standard input"),
        progress_bar(
            desc="reading standard input",
            unit="B",
            unit_scale=True,
            delay=1,
            leave=False,
        ) as bar,
    ):
        with whole_file(incoming) as partial, partial.open("wb") as file:
            while block := sys.stdin.buffer.read(BLOCK_BYTES):
                file.write(block)
                digest.update(block)
                bar.update(len(block))
        if not incoming.stat().st_size:
            incoming.unlink()
            raise InputError("standard input is empty")
        return incoming.rename(folder / f"{digest.hexdigest()}{_suffix(incoming)}")


def _suffix(path: Path) -> str:
    with path.open("rb") as file:
        if not (beginning := _JSON.match(file.peek(BLOCK_BYTES))):
            return ".txt"
        if beginning[1] != b"{":
            return ".json"
        file.seek(beginning.start(1))
        try:
            json.loads(file.readline(MAX_RECORD))
        except (ValueError, RecursionError):
            return ".txt"
        return ".jsonl"
