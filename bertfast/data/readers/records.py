"""Reads records from JSON lines, JSON arrays, CSV, TSV and parquet, and the text in one of their columns.

JSON and CSV are read by Python's own modules. pyarrow's readers treat a missing key as null, accept an unterminated
quoted field, count rows from the start of a block, and need blocks as long as the longest record.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

from bertfast.config import CorpusConfig
from bertfast.data.readers.lines import (
    BLOCK_BYTES,
    COMPRESSED,
    MAX_RECORD,
    OnRead,
    Span,
    ignore,
    opened,
    text_blocks,
    whole_lines,
)
from bertfast.errors import InputError, require_package

# Rows of a parquet file in memory at a time.
_ROWS = 256
_WHITE_SPACE = re.compile(r"\s*")
_TEXT_COLUMN = "--text-column"

# A record's place, whose string names it in messages, and the record.
Located = tuple[object, dict[str, Any]]


class RecordFile(NamedTuple):
    """A file of records, or a range of it."""

    path: Path
    kind: str
    """jsonl, json (an array), csv, tsv or parquet."""
    delimiter: str = CorpusConfig.delimiter
    """The character between the fields of a csv file."""
    span: Span = None
    """The range to read, end excluded: bytes of an uncompressed jsonl file, or row groups of a parquet file."""


def column_texts(file: RecordFile, column: str, on_read: OnRead = ignore) -> Iterator[str]:
    """Each record's text under `column`; an empty string for null.

    `column`: a key; `data.text` is the key `text` of the object under `data`, unless there is a key `data.text`. A list
    of texts is one text, with each item a paragraph.

    Raises `InputError`, with the line or row, for a record that is malformed, lacks the column, or has something other
    than text in it.
    """
    for where, record in records(file, [column], on_read):
        yield text_of(record, column, where)


def records(file: RecordFile, columns: Sequence[str] | None, on_read: OnRead = ignore) -> Iterator[Located]:
    """Each record, with its place.

    `columns`: those to read, the text's first; None: all. Raises `InputError` for a file or record that is malformed
    and, before the first record of a CSV, TSV or parquet file, for a column that the file lacks.
    """
    if file.kind == "jsonl":
        return _jsonl(file.path, columns, on_read, file.span)
    if file.kind == "json":
        return _json_array(file.path, columns, on_read)
    if file.kind == "parquet":
        return _parquet(file.path, columns, on_read, file.span)
    return _csv(file.path, columns, on_read, "\t" if file.kind == "tsv" else file.delimiter)


def json_kind(path: Path) -> str:
    """What a JSON file holds, by its first character: `json` for an array, else `jsonl`, one object per line."""
    for block in text_blocks(path):
        if text := block.lstrip():
            return "json" if text.startswith("[") else "jsonl"
    return "jsonl"


def text_of(record: dict[str, Any], column: str, where: object) -> str:
    """A record's text; an empty string for null. Raises `InputError` if the column is missing or holds no text."""
    value = value_of(record, column, where)
    if isinstance(value, list):
        return "\n\n".join(_checked(item, column, where, "a list with ") for item in value if item is not None)
    return "" if value is None else _checked(value, column, where)


def value_of(record: dict[str, Any], column: str, where: object, option: str = _TEXT_COLUMN) -> Any:
    """A record's value under a key or a nested key. Raises `InputError` that names the `option` to change."""
    if column in record:
        return record[column]
    value: Any = record
    passed = ""
    for key in column.split("."):
        if value is None:
            return None
        if not isinstance(value, dict):
            raise InputError(f"{where}: {passed[:-1]!r} holds {json_type(value)}, not an object: name another {option}")
        if key not in value:
            raise missing_column(where, column, (f"{passed}{name}" for name in value), option)
        value = value[key]
        passed += f"{key}."
    return value


def _checked(value: Any, column: str, where: object, container: str = "") -> str:
    if not isinstance(value, str):
        raise InputError(
            f"{where}: {column!r} holds {container}{json_type(value)}, not text: name another {_TEXT_COLUMN}"
        )
    if "\0" in value:
        raise InputError(f"{where}: the text holds a NUL character, so it is not text: fix that record")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            half = f"\\u{ord(value[error.start]):04x}"
            raise InputError(f"{where}: {half} is half of a surrogate pair, not a character: fix that record") from None
    return value


def missing_column(where: object, column: str, columns: Iterable[str], option: str = _TEXT_COLUMN) -> InputError:
    """The error for a column that is not among `columns`."""
    known = ", ".join(map(repr, columns)) or "none"
    return InputError(f"{where}: no column {column!r}; there are {known}: name one with {option}")


class _Line(NamedTuple):
    """A record's place: FILE:LINE as a string, for which the lines before the span are counted."""

    path: Path
    begin: int  # the span's first byte
    number: int  # the line's number in the span

    def __str__(self) -> str:
        before, left = 0, self.begin
        with self.path.open("rb") as file:
            while block := file.read(min(left, BLOCK_BYTES)):
                before += block.count(b"\n")
                left -= len(block)
        return f"{self.path}:{before + self.number}"


def _jsonl(path: Path, columns: Sequence[str] | None, on_read: OnRead, span: Span) -> Iterator[Located]:
    for number, line in enumerate(whole_lines(path, on_read, span), 1):
        if line.isspace():
            continue
        where = _Line(path, span[0] if span else 0, number)
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{where}: not JSON ({error.msg}, column {error.pos + 1}): give a JSON object on each line"
            ) from None
        except (ValueError, RecursionError) as error:  # a number of too many digits, brackets nested too deep
            raise InputError(f"{where}: JSON that can't be read ({error}): fix or remove that line") from None
        yield where, _object(record, columns, where)


def _object(record: Any, columns: Sequence[str] | None, where: object) -> dict[str, Any]:
    if not isinstance(record, dict):
        key = f" with a key {columns[0]!r}" if columns else ""
        raise InputError(f"{where}: a record is a JSON object{key}, not {json_type(record)}")
    return record


def _json_array(path: Path, columns: Sequence[str] | None, on_read: OnRead) -> Iterator[Located]:
    for number, record in enumerate(_ArrayReader(path, on_read).items(), 1):
        where = f"{path}, record {number}"
        yield where, _object(record, columns, where)


class _ArrayReader:
    """Reads a JSON array item by item. Raises `InputError`, with the line, for malformed JSON."""

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


def _csv(path: Path, columns: Sequence[str] | None, on_read: OnRead, delimiter: str) -> Iterator[Located]:
    csv.field_size_limit(MAX_RECORD)  # for the whole process; the library's default is 128 kB
    rows = csv.reader(whole_lines(path, on_read), delimiter=delimiter, strict=True)
    line = 1
    try:
        header = next(rows, [])
        if not header:
            return
        for column in columns or ():
            if column not in header:
                raise missing_column(path, column, header)
        indices = {column: header.index(column) for column in columns or header}
        line = rows.line_num + 1
        for row in rows:
            if row and len(row) != len(header):
                raise InputError(
                    f"{path}:{line}: a row of {len(row)} fields, but the header has {len(header)}: fix that row"
                )
            if row:
                yield f"{path}:{line}", {column: row[index] for column, index in indices.items()}
            line = rows.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{path}:{line}: the row that begins here is broken ({error}): put a field that contains quotes in quotes, "
            "and double each quote in it"
        ) from None


def _parquet(path: Path, columns: Sequence[str] | None, on_read: OnRead, span: Span) -> Iterator[Located]:
    require_package("pyarrow", f"reading {path}")
    import pyarrow  # here, since importing it is slow
    import pyarrow.parquet

    try:
        size = path.stat().st_size
        if not size:  # an empty file has no records, whatever its kind
            return
        with _seekable(path) as file:
            # Without pre-buffering, which would hold a row group's whole column in memory.
            table = pyarrow.parquet.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
            for index, column in enumerate(columns or ()):
                _check_column(path, column, table.schema_arrow, text=index == 0)
            groups = range(*(span or (0, table.num_row_groups)))
            rows = [table.metadata.row_group(group).num_rows for group in range(groups.stop)]
            row = before = sum(rows[: groups.start])
            reported, total = 0, sum(rows) - before
            size = size * len(groups) // max(1, table.num_row_groups)
            for batch in table.iter_batches(_ROWS, groups, columns and list(columns)):
                for values in zip(*batch.columns, strict=True):
                    row += 1
                    where = f"{path}, row {row}"
                    try:
                        record = {name: value.as_py() for name, value in zip(batch.schema.names, values, strict=True)}
                    except UnicodeDecodeError as error:
                        raise InputError(f"{where}: not UTF-8 ({error.reason}): fix that row") from None
                    yield where, record
                on_read(size * (row - before) // total - reported)
                reported = size * (row - before) // total
            on_read(size - reported)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"cannot read {path}: {error.strerror}") from None
        raise InputError(
            f"{path} is not a complete parquet file ({str(error).splitlines()[0]}): get it again"
        ) from None


def _check_column(path: Path, column: str, schema: Any, text: bool) -> None:
    """Raises `InputError` if the file lacks the column or, for the `text`, if its type can't hold any."""
    from pyarrow import types

    names, passed = schema.names, ""
    for key in [column] if column in names else column.split("."):
        if key not in names:
            raise missing_column(path, column, (f"{passed}{name}" for name in names))
        kind = schema.field(key).type
        schema, names = kind, [field.name for field in kind] if types.is_struct(kind) else []
        passed += f"{key}."
    if text and not _is_text(kind):
        raise InputError(f"{path}: {column!r} holds {kind}, not text: name another {_TEXT_COLUMN}")


def _is_text(kind: Any) -> bool:
    """Whether an Arrow type is text, lists of text, or null."""
    name = str(kind)
    if name.startswith(("dictionary<", "list<", "large_list<", "fixed_size_list<", "list_view<", "large_list_view<")):
        return _is_text(kind.value_type)
    return name in ("string", "large_string", "string_view", "null")


@contextmanager
def _seekable(path: Path) -> Iterator[IO[bytes]]:
    """The file, or, if it is compressed, a temporary file with its decompressed content."""
    if path.suffix.lower() not in COMPRESSED:
        with path.open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as copy:
        with opened(path) as compressed:
            shutil.copyfileobj(compressed, copy)
        yield copy


def json_type(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a string",
    }
    return names.get(type(value), "null" if value is None else type(value).__name__)
