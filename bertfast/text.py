"""Text in, sentences out.

Every source, whatever its form, becomes one stream: a sentence a string, and an empty string at the end of each
document. (Written a string a line, the stream is itself a text in the form `lines`.) It is read in blocks, so memory
doesn't grow with the text. Characters stay as they are (Unicode's forms are the tokenizer's business); a byte order
mark is dropped, and every kind of line end is "\\n".
"""

from __future__ import annotations

import codecs
import io
import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sentencex import segment

from bertfast.config import CorpusConfig
from bertfast.embedded import library_files, prose
from bertfast.errors import InputError
from bertfast.wikitext import NAMES, find_wikitext

BLOCK_BYTES = 1 << 20
# A line longer than this is read as several, and a file's form is told from this much of its beginning.
MAX_LINE = 1 << 20
SAMPLE = 1 << 16
# sentencex segments 36 MB/s in pieces of this size, 10 MB/s in pieces four times larger, and ever slower beyond. So it
# is also where prose without any sentence boundary is cut.
PIECE = 2048

TEXT_SUFFIXES = (".txt", ".tokens", ".raw", ".text", ".md")
TRAINING_SPLITS = ("wiki.train.tokens", "wiki.train.raw", "train.txt")
HELD_OUT_SPLITS = ("wiki.valid.tokens", "wiki.test.tokens", "wiki.valid.raw", "wiki.test.raw", "valid.txt", "test.txt")

_WIKITEXT_NAME = re.compile(r"wiki\.(train|valid|test)\.(tokens|raw)")
_WIKITEXT_HEADING = re.compile(r"\s= .+ =\s*")
_SENTENCE_END = re.compile(r"[.!?…。！？।۔؟]['\"’”»)\]]*\s*$")
_OUTER_PUNCTUATION = re.compile(r"(?<!\w)[^\w\s]|[^\w\s](?!\w)")

OnRead = Callable[[int], object]


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
    span: tuple[int, int] | None = None
    """The bytes that are read, from the first to before the second, where they aren't all of an uncompressed file."""

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
    """The files of a path, or of WikiText by its name, and the form of each.

    Raises `InputError` where there is no such path or nothing to read in it.
    """
    path = find_wikitext(str(name), cache) if str(name) in NAMES else Path(name).expanduser()
    if path.is_dir():
        paths, note = _files_of(path)
    elif path.is_file():
        paths, note = [path], ""
    elif path.exists():
        raise InputError(f"{path} is neither a file nor a folder: text is read more than once, so give a regular file")
    else:
        raise InputError(f"no such file or folder: {path}")
    auto = config.text_form == "auto"
    files = tuple(TextFile(file, _tell_form(file) if auto else config.text_form) for file in paths)
    counts = Counter(file.form for file in files)
    forms = files[0].form if len(files) == 1 else ", ".join(f"{count} files: {form}" for form, count in counts.items())
    return Source(files, f"{path}{note} ({forms})")


def embedded_source() -> Source:
    """The text for those who name none: what CPython's standard library says about itself."""
    files = tuple(TextFile(path, "python") for path in library_files())
    return Source(files, f"the prose of Python {platform.python_version()}'s own documentation")


def sentences(file: TextFile, language: str = "en", on_read: OnRead = lambda size: None) -> Iterator[str]:
    """The file's sentences, with an empty string after each document's last.

    `on_read` is told the size of every block of bytes read.
    """
    if file.form == "wikitext":
        yield from _wikitext(_lines(file, on_read))
    elif file.form == "lines":
        yield from map(str.strip, _lines(file, on_read))
    elif file.form == "plain":
        yield from _prose(_lines(file, on_read), language)
    else:
        source = file.path.read_bytes()
        on_read(len(source))
        # With its punctuation apart, as in WikiText, so that a word-level vocabulary is one of words.
        yield from (_OUTER_PUNCTUATION.sub(r" \g<0> ", sentence) for sentence in _prose(prose(source), "en"))
    yield ""


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
            while len(text) > PIECE:
                end = _whole_sentences(text[:PIECE], language)
                yield from _segment(text[:end], language)
                text = text[end:].lstrip()
        elif text:
            yield from _segment(text, language)
            yield ""
            text = ""
    if text:
        yield from _segment(text, language)


def _segment(text: str, language: str) -> list[str]:
    return [sentence.strip() for sentence in segment(language, text)]


def _whole_sentences(piece: str, language: str) -> int:
    """Where the last sentence of a piece begins, which may go on; in a piece of one, where its last word begins."""
    *whole, _ = segment(language, piece)
    return sum(map(len, whole)) or piece.rfind(" ") + 1 or len(piece)


def _lines(file: TextFile, on_read: OnRead = lambda size: None) -> Iterator[str]:
    """The lines of a UTF-8 file, or of its span, without their ends."""
    path = file.path
    position, end = file.span or (0, sys.maxsize)
    decoder = codecs.getincrementaldecoder("utf-8" if position else "utf-8-sig")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    rest = ""
    try:
        with path.open("rb") as opened:
            opened.seek(position)
            while True:
                block = opened.read(min(BLOCK_BYTES, end - position))
                if b"\0" in block:
                    raise InputError(
                        f"{path} is not text: byte {position + block.index(0)} is zero; give UTF-8 text files"
                    )
                position += len(block)
                text = newlines.decode(decoder.decode(block, final=not block), final=not block)
                *lines, rest = (rest + text).split("\n")
                yield from lines
                on_read(len(block))
                if not block:
                    break
                if len(rest) > MAX_LINE:
                    yield rest
                    rest = ""
    except UnicodeDecodeError as error:
        # The decoder was given what it had kept of the block before, and then the block.
        byte = position - len(error.object) + error.start
        raise InputError(f"{path} is not UTF-8: byte {byte} ({error.reason}); convert it, say with iconv") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if rest:
        yield rest


def _tell_form(path: Path) -> str:
    """The form of a file, told from its name or its beginning."""
    if _WIKITEXT_NAME.fullmatch(path.name):
        return "wikitext"
    lines: list[str] = []
    size = 0
    for line in _lines(TextFile(path, "")):
        size += len(line) + 1
        lines.append(line)
        if size > SAMPLE:
            break
    if any(_WIKITEXT_HEADING.fullmatch(line) for line in lines):
        return "wikitext"
    written = [line for line in lines if line.strip()]
    blocks = sum(1 for before, line in zip(["", *lines], lines, strict=False) if line.strip() and not before.strip())
    # In `lines` blank lines part blocks of several lines, each a sentence; blocks of one line are prose.
    ended = sum(1 for line in written if _SENTENCE_END.search(line))
    if blocks > 1 and len(written) >= 2 * blocks and ended > 0.5 * len(written):
        return "lines"
    return "plain"


def _files_of(folder: Path) -> tuple[list[Path], str]:
    """The text files of a folder, and a note where they are not all of them."""
    for name in TRAINING_SPLITS:
        held_out = [other for other in HELD_OUT_SPLITS if (folder / other).is_file()]
        if (folder / name).is_file() and held_out:
            return [folder / name], f": the training split {name} alone, without {' and '.join(held_out)}"
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in names if name.endswith(TEXT_SUFFIXES) and not name.startswith(".")]
    if not found:
        raise InputError(f"no text files in {folder}: bertfast reads {', '.join(TEXT_SUFFIXES)}")
    return sorted(found), ""
