"""`hf:NAME[/CONFIG][:SPLIT]`: a data set loaded by the `datasets` library, with its text cached as parquet.

A name on the hub is OWNER/NAME, so a third part is the configuration (`hf:Salesforce/wikitext/wikitext-2-v1:train`),
and a data set without an owner has no configuration here. NAME can also be a folder that holds a data set.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bertfast.data.readers.columns import missing_column, text_of
from bertfast.errors import InputError
from bertfast.files import locked, whole_file
from bertfast.log import progress_bar

PREFIX = "hf:"
_SOURCE = re.compile(r"hf:(?P<path>[^:]+)(:(?P<split>.+))?")
_ROWS = 256


def find_dataset(name: str, column: str, cache: Path) -> tuple[Path, str]:
    """The cached file of a data set's column, and the data set's name, without the folders that contain it.

    A data set in a folder is always loaded, one on the hub if it is not cached.
    """
    match = _SOURCE.fullmatch(name)
    if not match:
        raise InputError(f"{name!r} names no data set: hf:OWNER/NAME[/CONFIG][:SPLIT], or hf:FOLDER[:SPLIT]")
    repository, config, what, title = match["path"], None, name, name
    if local := Path(repository).is_dir():
        folder, split = Path(repository).resolve(), match[2] or ""
        # The name as given means another data set elsewhere, perhaps one on the hub.
        what, title = f"{folder}{split}", f"{PREFIX}{folder.name}{split}"
    elif repository.count("/") > 1:
        repository, _, config = repository.rpartition("/")
    key = hashlib.blake2b(f"{what}\0{column}".encode(), digest_size=6).hexdigest()
    cached = cache / "texts" / "hub" / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', name)}-{key}.parquet"
    cached.parent.mkdir(parents=True, exist_ok=True)
    with locked(cached.with_suffix(".lock"), f"loading {name}"):
        if local or not cached.exists():
            _write(cached, name, column, _rows(name, repository, config, match["split"] or "train", column))
    return cached, title


def _rows(name: str, repository: str, config: str | None, split: str, column: str) -> Iterator[list[dict[str, Any]]]:
    """Batches of rows, streamed, with only the column, or the one that it is nested in."""
    try:
        import datasets
        import huggingface_hub
    except ImportError:
        raise InputError(
            f"{name} needs the datasets library: pip install 'bertfast[hub]', or give files (.parquet, .jsonl, ...)"
        ) from None
    try:
        if not Path(repository).is_dir():
            # Without a network this fails at once, while loading would retry for half a minute.
            huggingface_hub.HfApi().dataset_info(repository, timeout=30)
        rows = datasets.load_dataset(repository, config, split=split, streaming=True)
        columns = rows.column_names or list(next(iter(rows), {}))
        outer = column if column in columns else column.split(".")[0]
        if outer not in columns:
            raise missing_column(name, column, columns)
        for batch in rows.select_columns([outer]).iter(_ROWS):
            yield [{outer: value} for value in batch[outer]]
    except InputError:
        raise
    except Exception as error:  # the library's, the hub's or HTTP's: all the same to the user
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{name} can't be loaded ({reason}): correct the name (hf:OWNER/NAME[/CONFIG][:SPLIT]), run once with a "
            "network, or give files (.parquet, .jsonl, ...)"
        ) from None


def _write(path: Path, name: str, column: str, batches: Iterator[list[dict[str, Any]]]) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([(column, pyarrow.large_string())])
    with (
        whole_file(path) as partial,
        pyarrow.parquet.ParquetWriter(partial, schema, compression="zstd") as writer,
        progress_bar(
            desc=f"loading {path.stem}",
            unit=" rows",
            unit_scale=True,
            delay=1,
            leave=False,
        ) as bar,
    ):
        row = 0
        for rows in batches:
            texts = [text_of(record, column, f"{name}, row {row + i}") for i, record in enumerate(rows, 1)]
            writer.write_table(pyarrow.table([texts], schema))
            row += len(rows)
            bar.update(len(rows))
