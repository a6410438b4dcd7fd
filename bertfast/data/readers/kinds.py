"""The kind of a file by its name, which decides how it is read."""

from __future__ import annotations

from pathlib import Path

from bertfast.data.readers.lines import COMPRESSED

# The kind of a file, by its suffix; .gz or .zst may follow.
KINDS = {
    ".txt": "text",
    ".text": "text",
    ".tokens": "text",
    ".raw": "text",
    ".md": "text",
    ".markdown": "text",
    ".rst": "text",
    ".html": "html",
    ".htm": "html",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
# Suffixes of text files in which a line is only a piece of a paragraph.
MARKUP = (".md", ".markdown", ".rst")


def kind_of(path: Path) -> str | None:
    """The kind of a file by its name: a value of `KINDS`, or None for any other suffix.

    A .json file can also hold JSON lines: see `json_kind`.
    """
    return KINDS.get(_uncompressed_suffix(path))


def is_markup(path: Path) -> bool:
    """Whether the name says that the file is Markdown or reStructuredText."""
    return _uncompressed_suffix(path) in MARKUP


def _uncompressed_suffix(path: Path) -> str:
    suffix = suffix_of(path).lower()
    for compressed in COMPRESSED:
        suffix = suffix.removesuffix(compressed)
    return suffix


def suffix_of(path: Path) -> str:
    """The name's suffix; if it is compressed, with the suffix before that."""
    suffixes = path.suffixes[-1:] if path.suffix.lower() not in COMPRESSED else path.suffixes[-2:]
    return "".join(suffixes)
