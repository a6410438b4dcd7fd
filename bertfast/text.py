"""Text in, sentences out.

Every source, whatever its form, becomes one stream: a sentence a string, and an empty string at the end of each
document. (Written a string a line, the stream is itself a text in the form `lines`.) It is read in blocks, so memory
doesn't grow with the text. A byte order mark is dropped, every kind of line end is "\\n", and characters are in
Unicode's form NFC, so that what looks alike is alike for every tokenizer and for who looks for duplicates.
"""

from __future__ import annotations

import os
import platform
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, pairwise
from pathlib import Path

from bertfast.config import CorpusConfig
from bertfast.embedded import library_files, prose
from bertfast.errors import InputError, require_package
from bertfast.folders import find_files, kind_of
from bertfast.html_text import html_lines
from bertfast.hub import PREFIX, find_dataset
from bertfast.lines import OnRead, Span, ignore, lines_of, text_lines
from bertfast.records import records
from bertfast.standard_input import keep_standard_input
from bertfast.wikitext import NAMES, find_wikitext

SOURCES = (
    "a file, folder or glob of text, HTML, JSON lines, CSV, TSV or parquet, also .gz or .zst; - for standard input; "
    "hf:NAME[/CONFIG][:SPLIT]; wikitext-2 or wikitext-103"
)
"""What a source may be, for who asks a command for help."""

# A file's form is told from this much of its beginning.
SAMPLE = 1 << 16
# sentencex segments 36 MB/s in pieces of this size, 10 MB/s in pieces four times larger, and ever slower beyond. So it
# is also where prose without any sentence boundary is cut.
PIECE = 2048

# The languages that sentencex has rules for. Others it would treat as one of these, and not say so.
LANGUAGES = tuple(
    "am ar bg bn ca da de el en es fi fr gu hi hy it ja kk kn ml mr my nl pa pl pt ru sk ta te uk".split()  # noqa: SIM905
)

_WIKITEXT_NAME = re.compile(r"wiki\.(train|valid|test)\.(tokens|raw)")
_WIKITEXT_HEADING = re.compile(r"\s= .+ =\s*")
_SENTENCE_END = re.compile(r"[.!?…。！？।۔؟]['\"’”»)\]]*\s*$")
_SENTENCE_WITHIN = re.compile(r"[.!?…]['\"’”»)\]]*\s+\S|[。！？।۔؟]['\"’”»)\]]*\s*\w")
_OUTER_PUNCTUATION = re.compile(r"(?<!\w)[^\w\s]|[^\w\s](?!\w)")


@dataclass(frozen=True)
class TextFile:
    """A file: what holds its text, and the form of that text."""

    path: Path
    form: str
    """wikitext, lines, plain, or python for the prose in a Python source file."""
    kind: str = "text"
    """text, html, jsonl, csv, tsv or parquet; compressed or not as the path's suffix says."""
    column: str = ""
    """The key or column that holds the text, where the kind is one of records."""
    span: Span = None
    """What is read, from the first to before the second, where that isn't all: bytes of an uncompressed text or jsonl
    file, row groups of a parquet file."""

    @property
    def reading(self) -> tuple[str, str, str]:
        """What, beside its bytes, the file's sentences follow from."""
        return self.form, self.kind, self.column


@dataclass(frozen=True)
class Source:
    """What one `--corpus` stands for."""

    files: tuple[TextFile, ...]
    """In the order in which they are read."""
    description: str
    """A line that says what was chosen, and why."""
    skipped: tuple[str, ...] = ()
    """A line for each file that was left out because it cannot be read; none unless `skip_bad_files` is on."""


def find_source(name: str | os.PathLike[str], config: CorpusConfig, cache: Path) -> Source:
    """The files that `name` stands for, and the form of each.

    `name`: a file, a folder, a glob, `-` for standard input, `hf:NAME[/CONFIG][:SPLIT]`, or WikiText by its name. The
    beginning of each file is read. Raises `InputError` where there is no such source or nothing to read in it, and,
    unless `config.skip_bad_files`, for the first file that cannot be read.
    """
    if config.language not in LANGUAGES:
        raise InputError(
            f"--language {config.language}: there are rules for {', '.join(LANGUAGES)}: give the nearest of these "
            "(en, say, for other languages in Latin letters and for Chinese)"
        )
    skipped: list[str] = []

    def refuse(line: str) -> None:
        if not config.skip_bad_files:
            raise InputError(line)
        skipped.append(line)

    name = str(name)
    if name == "-":
        paths, where = [keep_standard_input(cache)], "standard input"
    elif name.startswith(PREFIX):
        paths, where = [find_dataset(name, config.text_column, cache)], name
    else:
        place = str(find_wikitext(name, cache)) if name in NAMES else name
        paths, note = find_files(place, refuse)
        where = f"{Path(place).expanduser()}{note}"
    files = []
    for path in paths:
        try:
            files.append(_told(path, config))
        except InputError as error:
            refuse(str(error))
    if not files:
        raise InputError(f"no file of {where} can be read: {skipped[0]}")
    left_out = f"; {len(skipped)} bad left out, the first: {skipped[0]}" if skipped else ""
    return Source(tuple(files), f"{where} ({_forms(files)}{left_out})", tuple(skipped))


def _forms(files: list[TextFile]) -> str:
    """What the files are, in a few words."""
    names = [file.form if file.kind == "text" else f"{file.kind}, {file.form}" for file in files]
    if len(files) == 1:
        return names[0]
    counts = [f"{count} {'file' if count == 1 else 'files'}: {name}" for name, count in Counter(names).items()]
    if empty := sum(1 for file in files if file.path.stat().st_size == 0):
        counts.append(f"{empty} of them empty")
    return "; ".join(counts)


def embedded_source() -> Source:
    """The text for those who name none: what CPython's standard library says about itself."""
    files = tuple(TextFile(path, "python") for path in library_files())
    return Source(files, f"the prose of Python {platform.python_version()}'s own documentation")


def sentences(file: TextFile, language: str = "en", on_read: OnRead = ignore) -> Iterator[str]:
    """The file's sentences, with an empty string after each document's last.

    A document is a line (`wikitext`), ends with a blank line (`lines` and `plain` text files), or is a record or an
    HTML file. `on_read` is told the size of every block of bytes read. Raises `InputError` for what cannot be read.
    """
    for lines in _texts(file, on_read):
        normalised = map(partial(unicodedata.normalize, "NFC"), lines)
        if file.form == "wikitext":
            yield from _wikitext(normalised)
        elif file.form == "python":
            # With its punctuation apart, as in WikiText, so that a word-level vocabulary is one of words.
            yield from (_OUTER_PUNCTUATION.sub(r" \g<0> ", sentence) for sentence in _prose(normalised, "en"))
        else:
            found = map(str.strip, normalised) if file.form == "lines" else _prose(normalised, language)
            # Blank lines end documents in text files alone; elsewhere they part paragraphs.
            yield from found if file.kind == "text" else filter(None, found)
        yield ""


def _texts(file: TextFile, on_read: OnRead = ignore) -> Iterator[Iterator[str]]:
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
        yield from map(lines_of, records(file.path, file.kind, file.column, on_read, file.span))


def _wikitext(lines: Iterator[str]) -> Iterator[str]:
    # As in the notebook: a line that holds " . " is a document; others (headings, single sentences) are left out.
    for line in lines:
        if " . " in line:
            yield from filter(None, map(str.strip, line.strip().replace("<unk>", "[UNK]").split(" . ")))
            yield ""


def _prose(lines: Iterator[str], language: str) -> Iterator[str]:
    text = ""
    for line in map(str.strip, lines):
        if line:
            text = f"{text} {line}" if text else line
            if len(text) > PIECE:
                begin = 0
                while len(text) - begin > PIECE:
                    whole = _whole_sentences(text[begin : begin + PIECE], language)
                    yield from map(str.strip, whole)
                    begin += sum(map(len, whole))
                text = text[begin:].lstrip()
        elif text:
            yield from map(str.strip, _segment(text, language))
            yield ""
            text = ""
    if text:
        yield from map(str.strip, _segment(text, language))


def _whole_sentences(piece: str, language: str) -> list[str]:
    """The sentences of a piece but its last, which may go on; of a single sentence, its words but the last."""
    *whole, _ = _segment(piece, language)
    return whole or [piece[: piece.rstrip().rfind(" ") + 1 or len(piece)]]


def _segment(text: str, language: str) -> list[str]:
    """The text's sentences. Raises InputError where the package that finds them is missing."""
    require_package("sentencex", "cutting prose into sentences")
    from sentencex import segment  # here, for a corpus that is built and text of other forms need none

    sentences: list[str] = segment(language, text)
    return sentences


def _told(path: Path, config: CorpusConfig) -> TextFile:
    """The file, with its form as given or told from its name or its beginning."""
    kind = kind_of(path) or "text"
    file = TextFile(path, "plain", kind, config.text_column if kind not in ("text", "html") else "")
    lines: list[str] = []
    size = 0
    for line in chain.from_iterable(_texts(file)):
        size += len(line) + 1
        lines.append(line)
        if size > SAMPLE:
            break
    form = config.text_form
    if form == "auto":
        form = "wikitext" if _WIKITEXT_NAME.fullmatch(path.name) else _tell_form(lines, kind)
    return replace(file, form=form)


def _tell_form(lines: list[str], kind: str) -> str:
    """The form of a text that begins with these lines."""
    if any(_WIKITEXT_HEADING.fullmatch(line) for line in lines):
        return "wikitext"
    return "lines" if kind == "text" and _sentence_a_line(lines) else "plain"


def _sentence_a_line(lines: list[str]) -> bool:
    written = [line.strip() for line in lines if line.strip()]
    blocks = sum(1 for before, line in pairwise(["", *lines]) if line.strip() and not before.strip())
    if len(written) < 2 * blocks:  # paragraphs, a line each
        return False
    if sum(1 for line in written if _SENTENCE_END.search(line)) > 0.5 * len(written):
        return blocks > 1  # in one block, plain text gives the same sentences, and better ones where a line holds two
    if len(written) < 10 or sum(1 for line in written if _SENTENCE_WITHIN.search(line)) > 0.05 * len(written):
        return False
    # Sentences without full stops, or prose without any that was wrapped? A wrapped line has no room for the next word.
    width = sorted(map(len, written))[int(0.9 * len(written))]
    breaks = [(line.strip(), after.split()[0]) for line, after in pairwise(lines) if line.strip() and after.strip()]
    return sum(1 for line, word in breaks if len(line) + 1 + len(word) <= width) > 0.5 * len(breaks)
