"""Reads records from JSON lines, JSON arrays, CSV, TSV and parquet, and the text in one of their columns.

JSON and CSV are read by Python's own modules. pyarrow's readers treat a missing key as null, accept an unterminated
quoted field, count rows from the start of a block, and need blocks as long as the longest record.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bertfast.data.readers.columns import json_type, missing_column, text_of
from bertfast.data.readers.json_array import array_items
from bertfast.data.readers.lines import (
    BLOCK_BYTES,
    MAX_RECORD,
    OnRead,
    Span,
    ignore,
    record_lines,
    text_blocks,
    whole_lines,
)
from bertfast.data.readers.parquet import parquet_records
from bertfast.errors import InputError

if TYPE_CHECKING:
    from bertfast.data.text_file import TextFile

# A record's place, whose string names it in messages, and the record.
Located = tuple[object, dict[str, Any]]

DELIMITER = "--delimiter"


def column_texts(file: TextFile, on_read: OnRead = ignore) -> Iterator[str]:
    """Each record's text under the file's column; an empty string for null.

    The column is a key; `data.text` is the key `text` of the object under `data`, unless there is a key `data.text`. A
    list of texts is one text, with each item a paragraph.

    Raises `InputError`, with the line or row, for a record that is malformed, lacks the column, or has something other
    than text in it.
    """
    for where, record in records(file, [file.column], on_read):
        yield text_of(record, file.column, where)


def records(
    file: TextFile, columns: Sequence[str] | None, on_read: OnRead = ignore, delimiter_option: str = DELIMITER
) -> Iterator[Located]:
    """Each record, with its place.

    `columns`: those to read, the text's first; None: all of several. `delimiter_option`: what a message about a CSV
    file's delimiter names; empty where no option sets it. Raises `InputError` for a file or record that is malformed
    and, before the first record of a CSV, TSV or parquet file, for a column that the file lacks.
    """
    if file.kind == "jsonl":
        return _jsonl(file.path, columns, on_read, file.span)
    if file.kind == "json":
        return _json_array(file.path, columns, on_read)
    if file.kind == "parquet":
        return parquet_records(file.path, columns, on_read, file.span)
    return _csv(file.path, columns, on_read, "\t" if file.kind == "tsv" else file.delimiter, delimiter_option)


def json_kind(path: Path) -> str:
    """What a JSON file holds, by its first character: `json` for an array, else `jsonl`, one object per line."""
    for block in text_blocks(path):
        if text := block.lstrip():
            return "json" if text.startswith("[") else "jsonl"
    return "jsonl"


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
        if not line.strip():
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
    for number, record in enumerate(array_items(path, on_read), 1):
        where = f"{path}, record {number}"
        yield where, _object(record, columns, where)


def _check_header(
    path: Path, columns: Sequence[str] | None, header: list[str], delimiter: str, delimiter_option: str
) -> None:
    """Raises InputError for a column that is not in the header. One field that holds a delimiter is several columns."""
    missing = next((column for column in columns or () if column not in header), None)
    other = next((each for each in ";,|\t" if each in header[0] and each != delimiter), "")
    if len(header) == 1 and delimiter != "\t" and other and (columns is None or missing is not None):
        way_out = f"give {delimiter_option} '{other}'" if delimiter_option else f"put '{delimiter}' between its fields"
        if other == "\t":
            way_out = "give it a name that ends in .tsv"
        raise InputError(f"{path} has one column, {header[0]!r}: {way_out}")
    if missing is not None:
        raise missing_column(path, missing, header)


def _csv(
    path: Path, columns: Sequence[str] | None, on_read: OnRead, delimiter: str, delimiter_option: str
) -> Iterator[Located]:
    csv.field_size_limit(MAX_RECORD)  # for the whole process; the library's default is 128 kB
    rows = csv.reader(record_lines(path, on_read), delimiter=delimiter, strict=True)
    line = 1
    try:
        header = next(filter(None, rows), [])  # the first line that is not empty
        if not header:
            return
        _check_header(path, columns, header, delimiter, delimiter_option)
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
