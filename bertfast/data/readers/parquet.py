"""Reads the rows of parquet files as records, whose text `records.py` takes and `sentences.py` cuts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bertfast.data.readers.columns import TEXT_COLUMN, missing_column
from bertfast.data.readers.lines import COMPRESSED, OnRead, Span, opened
from bertfast.errors import InputError, require_package

# Rows in memory at a time.
_ROWS = 256


def parquet_records(
    path: Path, columns: Sequence[str] | None, on_read: OnRead, span: Span
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row, with its place; `columns`, `span` and the errors are as in `records.records`."""
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
        raise InputError(f"{path}: {column!r} holds {kind}, not text: name another {TEXT_COLUMN}")


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
