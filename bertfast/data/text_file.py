"""A file of text: its format and form, and its lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bertfast.config import CorpusConfig
from bertfast.data.readers.docstrings import prose
from bertfast.data.readers.html import html_lines
from bertfast.data.readers.lines import OnRead, Span, ignore, lines_of, text_lines
from bertfast.data.readers.records import column_texts


@dataclass(frozen=True)
class TextFile:
    """A file: the format that holds its text, and the form of that text."""

    path: Path
    form: str
    """wikitext, lines, paragraphs, plain, or python for the prose in a Python source file."""
    kind: str = "text"
    """text, html, jsonl, json (an array), csv, tsv or parquet. The path's suffix says whether it is compressed."""
    column: str = ""
    """The key or column that holds the text, if the file consists of records."""
    documents: str = "auto"
    """What a document is. file: the file, or each record; paragraph: the text between blank lines; parts: parts of the
    file, found by data/building/documents.py; auto: paragraph for text of the forms lines and paragraphs, else file."""
    span: Span = None
    """The range to read, end excluded; None: everything. In bytes of an uncompressed text or jsonl file, or row groups
    of a parquet file."""
    delimiter: str = CorpusConfig.delimiter
    """The character between the fields of a csv file."""

    @property
    def reading(self) -> tuple[str, ...]:
        """The settings that determine the file's sentences and documents, given its bytes."""
        delimiter = [self.delimiter] if self.kind == "csv" else []
        return self.form, self.kind, self.column, self.documents_end, *delimiter

    @property
    def documents_end(self) -> str:
        """`documents` with auto resolved: file, paragraph or parts."""
        if self.documents != "auto":
            return self.documents
        return "paragraph" if self.kind == "text" and self.form in ("lines", "paragraphs") else "file"

    @property
    def document(self) -> str:
        """What a document is, in words."""
        if self.form == "wikitext":
            return "a line"
        if self.form == "python":
            return "a topic or module"
        if self.documents_end == "file":
            return "a file" if self.kind in ("text", "html") else "a record"
        return {"paragraph": "a block between blank lines", "parts": "a part of a file"}[self.documents_end]


def texts(file: TextFile, on_read: OnRead = ignore) -> Iterator[Iterator[str]]:
    """The lines of each text in the file: of the file itself, or of each record."""
    if file.form == "python":
        source = file.path.read_bytes()
        on_read(len(source))
        yield prose(source)
    elif file.kind == "text":
        yield text_lines(file.path, on_read, file.span)
    elif file.kind == "html":
        yield html_lines(file.path, on_read)
    else:
        yield from map(lines_of, column_texts(file, on_read))
