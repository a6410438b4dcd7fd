"""Reads a JSON array item by item, so that memory use doesn't grow with the file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from bertfast.data.readers.lines import MAX_RECORD, OnRead, text_blocks
from bertfast.errors import InputError

_WHITE_SPACE = re.compile(r"\s*")


def array_items(path: Path, on_read: OnRead) -> Iterator[Any]:
    """The items of the array in a file. Raises `InputError`, with the line, for malformed JSON."""
    return _ArrayReader(path, on_read).items()


class _ArrayReader:
    def __init__(self, path: Path, on_read: OnRead) -> None:
        self._path = path
        self._blocks = text_blocks(path, on_read)
        self._text = ""
        self._at = 0  # the index in `_text` to parse next
        self._line = 1  # the line at which `_text` begins

    def items(self) -> Iterator[Any]:
        if self._next() != "[":
            self._refuse("an array begins with [", self._at)
        self._at += 1
        if self._next() == "]":
            self._at += 1
        else:
            yield self._item()
            while (character := self._next()) == ",":
                self._at += 1
                yield self._item()
            if character != "]":
                self._refuse("expecting , or ]", self._at)
            self._at += 1
        if self._next():
            self._refuse("text after the array's end", self._at)

    def _next(self) -> str:
        """The next character that isn't white space; an empty string at the end."""
        while True:
            space = _WHITE_SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def _item(self) -> Any:
        self._next()
        while True:
            try:
                item, end = json.JSONDecoder().raw_decode(self._text, self._at)
                # An object ends with its bracket; a number may continue in the next block.
                if end < len(self._text) or isinstance(item, dict) or not self._read_on():
                    self._at = min(end, len(self._text))
                    return item
                continue
            except json.JSONDecodeError as error:  # malformed, or cut off by the end of the block
                if len(self._text) - self._at > MAX_RECORD:
                    what = f"{error.msg}: the record is malformed, or longer than {MAX_RECORD >> 20} MiB"
                    self._refuse(what, self._at)
                if not self._read_on():
                    self._refuse(error.msg, error.pos)
            except (ValueError, RecursionError) as error:  # a number of too many digits, brackets nested too deep
                self._refuse(str(error), self._at)

    def _read_on(self) -> bool:
        """Reads at least as much as is left, so that a long item isn't parsed once per block. False at the end."""
        left = self._text[self._at :]
        pieces, size = [left], 0
        for block in self._blocks:
            pieces.append(block)
            size += len(block)
            if size > len(left):
                break
        if size:
            self._line += self._text.count("\n", 0, self._at)
            self._text, self._at = "".join(pieces), 0
        return size > 0

    def _refuse(self, message: str, position: int) -> NoReturn:
        line = self._line + self._text.count("\n", 0, position)
        column = position - self._text.rfind("\n", 0, position)
        raise InputError(
            f"{self._path}:{line}: not JSON ({message}, column {column}): give an array of JSON objects, or a JSON "
            "object on each line"
        )
