"""A file of text: where its text lies, and the lines of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bertfast.config import CorpusConfig
from bertfast.data.readers.html import html_lines
from bertfast.data.readers.lines import OnRead, Span, ignore, lines_of, text_lines
from bertfast.data.readers.records import records
from bertfast.data.sources.embedded import prose


@dataclass(frozen=True)
class TextFile:
    """A file: what holds its text, and the form of that text."""

    path: Path
    form: str
    """wikitext, lines, plain, or python for the prose in a Python source file."""
    kind: str = "text"
    """text, html, jsonl, json (an array), csv, tsv or parquet; compressed or not as the path's suffix says."""
    column: str = ""
    """The key or column that holds the text, where the kind is one of records."""
    documents: str = "auto"
    """What a document is. file: the file, or each record; paragraph: what blank lines enclose; parts: parts of the
    file, found by data/building/documents.py; auto: paragraph for the text of form lines, file for all else."""
    span: Span = None
    """What is read, from the first to before the second, where that isn't all: bytes of an uncompressed text or jsonl
    file, row groups of a parquet file."""
    delimiter: str = CorpusConfig.delimiter
    """The character between the fields of a csv file."""

    @property
    def reading(self) -> tuple[str, ...]:
        """What, beside its bytes, the file's sentences and documents follow from."""
        delimiter = [self.delimiter] if self.kind == "csv" else []
        return self.form, self.kind, self.column, self.documents_end, *delimiter

    @property
    def documents_end(self) -> str:
        """`documents`, decided: file, paragraph or parts."""
        if self.documents != "auto":
            return self.documents
        return "paragraph" if self.kind == "text" and self.form == "lines" else "file"

    @property
    def document(self) -> str:
        """What a document is, in words."""
        if self.form == "wikitext":
            return "a line"
        if self.form == "python":
            return "a topic or module"
        if self.documents_end == "file":
            return "a file" if self.kind in ("text", "html") else "a record"
        return {"paragraph": "what blank lines enclose", "parts": "a part of a file"}[self.documents_end]


def texts(file: TextFile, on_read: OnRead = ignore) -> Iterator[Iterator[str]]:
    """The lines of a file of text, or of each record."""
    if file.form == "python":
        source = file.path.read_bytes()
        on_read(len(source))
        yield prose(source)
    elif file.kind == "text":
        yield text_lines(file.path, on_read, file.span)
    elif file.kind == "html":
        yield html_lines(file.path, on_read)
    else:
        yield from map(lines_of, records(file.path, file.kind, file.column, on_read, file.span, file.delimiter))
