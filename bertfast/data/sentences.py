"""Text in, sentences out.

Every source, whatever its form, becomes one stream: a sentence a string, and an empty string at the end of each
document. (Written a string a line, the stream is itself a text in the form `lines`.) It is read in blocks, so memory
doesn't grow with the text. A byte order mark is dropped, every kind of line end is "\\n", and characters are in
Unicode's form NFC, so that what looks alike is alike for every tokenizer and for who looks for duplicates.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import partial

from bertfast.data.readers.lines import OnRead, ignore
from bertfast.data.text_file import TextFile, texts
from bertfast.errors import require_package

# sentencex segments 36 MB/s in pieces of this size, 10 MB/s in pieces four times larger, and ever slower beyond. So it
# is also where prose without any sentence boundary is cut.
PIECE = 2048

# The languages that sentencex has rules for. Others it would treat as one of these, and not say so.
LANGUAGES = tuple(
    "am ar bg bn ca da de el en es fi fr gu hi hy it ja kk kn ml mr my nl pa pl pt ru sk ta te uk".split()  # noqa: SIM905
)

_OUTER_PUNCTUATION = re.compile(r"(?<!\w)[^\w\s]|[^\w\s](?!\w)")


def sentences(file: TextFile, language: str = "en", on_read: OnRead = ignore) -> Iterator[str]:
    """The file's sentences, with an empty string after each document's last.

    A document is a line (`wikitext`), ends with a blank line (`lines` and `plain` text files), or is a record or an
    HTML file. `on_read` is told the size of every block of bytes read. Raises `InputError` for what cannot be read.
    """
    for lines in texts(file, on_read):
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
    from sentencex import segment  # here: a corpus that is built, and text of other forms, need none

    sentences: list[str] = segment(language, text)
    return sentences
