"""Files of records (JSON lines, CSV, TSV, parquet): the text that each record holds under one key."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from bertfast.data.readers.lines import BLOCK_BYTES, COMPRESSED, MAX_RECORD, OnRead, Span, ignore, opened, whole_lines
from bertfast.errors import InputError, require_package

# Rows of a parquet file that are in memory at a time.
_ROWS = 256


def records(path: Path, kind: str, column: str, on_read: OnRead = ignore, span: Span = None) -> Iterator[str]:
    """The text of each record under `column`; null and empty ones are left out. `kind`: jsonl, csv, tsv or parquet.

    `span`: the first byte that is read of an uncompressed jsonl file, or the first row group of a parquet file, and
    the first that isn't.

    Raises `InputError`, with the line or row, where a record is malformed, lacks the column, or holds there what is
    no text.
    """
    return filter(None, _READERS[kind](path, column, on_read, span))


def text_of(value: Any, column: str, where: object) -> str:
    """A record's text: the value itself, or nothing for null. Raises `InputError` for what is no text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{where}: {column!r} holds {_json_type(value)}, not text: name another --text-column")
    if "\0" in value:
        raise InputError(f"{where}: the text holds a NUL character, so it is no text: mend that record")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            half = f"\\u{ord(value[error.start]):04x}"
            raise InputError(
                f"{where}: {half} is half of a surrogate pair, and no character: mend that record"
            ) from None
    return value


def missing_column(where: object, column: str, columns: Iterable[str]) -> InputError:
    there = ", ".join(map(repr, columns)) or "none"
    return InputError(f"{where}: no column {column!r}; there are {there}: name one with --text-column")


class _Line(NamedTuple):
    """Where a record stands; as a string, FILE:LINE. Only then, for an error, are the lines before a span counted."""

    path: Path
    begin: int  # the span's
    number: int  # in it

    def __str__(self) -> str:
        before, left = 0, self.begin
        with self.path.open("rb") as file:
            while block := file.read(min(left, BLOCK_BYTES)):
                before += block.count(b"\n")
                left -= len(block)
        return f"{self.path}:{before + self.number}"


def _jsonl(path: Path, key: str, on_read: OnRead, span: Span) -> Iterator[str]:
    for number, line in enumerate(whole_lines(path, on_read, span), 1):
        if line.isspace():
            continue
        where = _Line(path, span[0] if span else 0, number)
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{where}: not JSON ({error.msg}, column {error.pos + 1}): a JSON object a line, please"
            ) from None
        except (ValueError, RecursionError) as error:  # a number of too many digits, brackets nested too deep
            raise InputError(f"{where}: JSON that can't be read ({error}): mend or remove that line") from None
        if not isinstance(record, dict):
            raise InputError(f"{where}: a record is a JSON object with a key {key!r}, not {_json_type(record)}")
        if key not in record:
            raise missing_column(where, key, record)
        yield text_of(record[key], key, where)


def _csv(path: Path, column: str, on_read: OnRead, span: Span, delimiter: str = ",") -> Iterator[str]:
    csv.field_size_limit(MAX_RECORD)  # of the whole process, alas; the library's own limit is 128 kB
    rows = csv.reader(whole_lines(path, on_read, span), delimiter=delimiter, strict=True)
    line = 1
    try:
        header = next(rows, [])
        if not header:
            return
        if column not in header:
            raise missing_column(path, column, header)
        index = header.index(column)
        line = rows.line_num + 1
        for row in rows:
            if row and len(row) != len(header):
                raise InputError(
                    f"{path}:{line}: a row of {len(row)} fields, where the header has {len(header)}: mend that row"
                )
            if row:
                yield text_of(row[index], column, f"{path}:{line}")
            line = rows.line_num + 1
    except csv.Error as error:
        raise InputError(
            f'{path}:{line}: the row that begins here is broken ({error}): a field with quotes in it stands in ", '
            'each " within doubled'
        ) from None


def _tsv(path: Path, column: str, on_read: OnRead, span: Span) -> Iterator[str]:
    return _csv(path, column, on_read, span, "\t")


def _parquet(path: Path, column: str, on_read: OnRead, span: Span) -> Iterator[str]:
    require_package("pyarrow", f"reading {path}")
    import pyarrow  # here, for it takes a while
    import pyarrow.parquet

    try:
        size = path.stat().st_size
        if not size:  # as empty as an empty file of any other kind
            return
        with _seekable(path) as file:
            # Buffered as it is read, not before, or a row group's column would be in memory as a whole.
            table = pyarrow.parquet.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
            _check_column(path, column, table.schema_arrow)
            groups = range(*(span or (0, table.num_row_groups)))
            rows = [table.metadata.row_group(group).num_rows for group in range(groups.stop)]
            row = before = sum(rows[: groups.start])
            told, total = 0, sum(rows) - before
            size = size * len(groups) // max(1, table.num_row_groups)
            for batch in table.iter_batches(_ROWS, groups, [column]):
                for value in batch.column(0):
                    row += 1
                    where = f"{path}, row {row}"
                    try:
                        text = value.as_py()
                    except UnicodeDecodeError as error:
                        raise InputError(f"{where}: not UTF-8 ({error.reason}): mend that row") from None
                    yield text_of(text, column, where)
                on_read(size * (row - before) // total - told)
                told = size * (row - before) // total
            on_read(size - told)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"cannot read {path}: {error.strerror}") from None
        raise InputError(f"{path} is no whole parquet file ({str(error).splitlines()[0]}): get it again") from None


def _check_column(path: Path, column: str, schema: Any) -> None:
    from pyarrow import types

    if column not in schema.names:
        raise missing_column(path, column, schema.names)
    kind = schema.field(column).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind)):
        raise InputError(f"{path}: {column!r} holds {kind}, not text: name another --text-column")


@contextmanager
def _seekable(path: Path) -> Iterator[IO[bytes]]:
    """The file, or, where it is compressed, a temporary file of what it holds."""
    if path.suffix.lower() not in COMPRESSED:
        with path.open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as copy:
        with opened(path) as compressed:
            shutil.copyfileobj(compressed, copy)
        yield copy


def _json_type(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a string",
    }
    return names.get(type(value), "null" if value is None else type(value).__name__)


_READERS: dict[str, Callable[[Path, str, OnRead, Span], Iterator[str]]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "tsv": _tsv,
    "parquet": _parquet,
}
