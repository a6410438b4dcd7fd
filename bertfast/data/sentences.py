"""Divides text of any form into sentences.

Every source becomes one stream of strings: sentences, with the marks `DOCUMENT`, `PART` and `PARAGRAPH` between them.
Text is read in blocks, so memory use doesn't grow with its size. A byte order mark is dropped, every kind of line end
becomes "\\n", and characters are normalised to Unicode NFC, so that text that looks the same is the same to every
tokenizer and to deduplication.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from bertfast.data.abbreviations import END, ends_sentence, expects_more
from bertfast.data.normal_form import nfc
from bertfast.data.readers.lines import OnRead, ignore
from bertfast.data.text_file import TextFile, texts

# In characters. sentencex segments 36 MB/s in pieces of this size, 10 MB/s in pieces four times larger, and larger ones
# are slower still. Prose without any sentence boundary is cut at this length, too.
PIECE = 2048
# In a paragraph of at least this many pieces, a document may end within the paragraph.
_LONG_PARAGRAPH = 4

# The languages that sentencex has rules for. It silently treats any other language as one of these.
LANGUAGES = tuple(
    "am ar bg bn ca da de el en es fi fr gu hi hy it ja kk kn ml mr my nl pa pl pt ru sk ta te uk".split()  # noqa: SIM905
)
# For some other languages, one whose rules are used instead: it is related, or has the same punctuation.
_NEAREST = {
    "af": "nl", "as": "bn", "az": "en", "be": "ru", "cs": "sk", "fa": "ar", "fy": "nl", "gl": "pt", "he": "en",
    "ko": "en", "ky": "kk", "lb": "de", "mk": "bg", "ne": "hi", "nb": "da", "nn": "da", "no": "da", "oc": "ca",
    "or": "hi", "ro": "it", "sa": "hi", "si": "ta", "sl": "sk", "sr": "ru", "sv": "da", "th": "en", "tr": "en",
    "tt": "kk", "ug": "ar", "ur": "ar", "uz": "en", "vi": "en", "yue": "ja", "zh": "ja",
}  # fmt: skip


def rules_of(language: str) -> str:
    """The language whose sentence rules are used for a code such as "de" or "pt-BR"; English if the code is unknown."""
    base = language.replace("_", "-").split("-")[0].lower()
    return base if base in LANGUAGES else _NEAREST.get(base, "en")


DOCUMENT = ""
"""Ends a document."""
PART = "\f"
"""A new part of the text begins: ends a document unless it is too short (data/building/documents.py)."""
PARAGRAPH = "\v"
"""A paragraph ends: ends a document if it is long enough."""
MARKS = frozenset((DOCUMENT, PART, PARAGRAPH))


class _Marks(NamedTuple):
    """The marks to emit where a paragraph ends, where a part begins, within a very long paragraph, and at a blank line
    if each line is a paragraph."""

    paragraph: tuple[str, ...] = ()
    part: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    blank: tuple[str, ...] = ()


_MARKS = {
    "file": _Marks(),
    "paragraph": _Marks(paragraph=(DOCUMENT,)),
    "parts": _Marks((PARAGRAPH,), (PART,), (PARAGRAPH,)),
}
# In the form `paragraphs`, where blank lines end documents.
_MARKS_OF_LINES = _MARKS | {
    "paragraph": _Marks(blank=(DOCUMENT,)),
    "parts": _MARKS["parts"]._replace(blank=(PART,)),
}
_BLANK = "\x1c"
"""A blank line, if each line is a paragraph."""

# A line of nothing but these is a rule, a heading's underline or a table's border. It holds no words.
_RULE = frozenset("-=*_~#^+|:─━═—― \t")
_RULE_WIDTH = 3
_MARKDOWN_HEADING = re.compile(r"#{1,6}\s+\S")
# Where Markdown's blocks of code begin and end.
_FENCE = re.compile(r"```[^`]*\Z")
# How an item of a list begins.
_ITEM = re.compile(r"(?:[-*+•]|\d{1,2}[.)])\s")
_FIRST_ITEM = re.compile(r"(?:[-*+•]|1[.)])\s")
# What precedes each line of a quoted text, in mail and in Markdown.
_QUOTE = re.compile(r"\A(?:>\s+)*>(?:\s+(?!\d)|\Z)")
# A paragraph of one short line is a heading, unless it ends like a sentence or like a line that continues.
_HEADING_WIDTH = 80
_NO_HEADING = re.compile(r"[.!?…。！？।۔,;:，；：、]['\"’”»)\]」』）]*$")

# Letters and punctuation of the scripts that put no spaces between words.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u312f\u31a0-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)
# Single letters with a full stop each, as in "e.g." and "z.B.", but not "a.m.", which often ends a sentence.
_ABBREVIATION = re.compile(r"(?<![^\W_])(?![ap]\.m\.)(?:[^\W\d_]\.){2,}\s+\Z")
_FULL_STOP = re.compile(r"[.!?…]['\"’”»)\]]*\Z")
# A stop within what sentencex takes for one sentence.
_STOP_WITHIN = re.compile(r"[.!?]\s+(?=\S)")
_MARKED = re.compile(r"(?:(?:\(?\w{1,5}\)|[•▪●○◦‣])\s+)+(?=\S)")
# No sentence begins with these; nor with the others, unless a word follows: in some languages they open a quotation.
_CONTINUING = frozenset("，、；：。,;)）」』")
_CLOSING = frozenset(":”’»")
# Who speaks, after a dash or a quotation: "— Что? — спросила она."
_DASHES = frozenset("—–-")
_SPEECH = re.compile(r"[!?…]['\"’”»]?\s*\Z|[.,]['\"’”»]\s*\Z")
_QUOTED = re.compile(r"[」』）？！…]\Z")
_SAID = re.compile("と[\u4e00-\u9fff、い]|って|など")
_THAI = re.compile("[\u0e00-\u0e7f]")
_THAI_ABBREVIATION = re.compile("[\u0e00-\u0e7f]\\.\\Z")
_HYPHENATED = re.compile(r"[^\W\d_]-")
# After these a hyphen stands for a part of a word: "Vor- und Nachteile".
_JOINING = frozenset("und oder bis sowie and or to en of og eller och ou et y o e i".split())  # noqa: SIM905
_OUTER_PUNCTUATION = re.compile(r"(?<!\w)[^\w\s]|[^\w\s](?!\w)")


@dataclasses.dataclass
class Tally:
    """How much text was read, and how much of it the form left out. Blank lines don't count."""

    lines: int = 0
    characters: int = 0
    lines_left_out: int = 0
    characters_left_out: int = 0

    def read(self, lines: Iterable[str]) -> Iterator[str]:
        """Yields the lines and counts them."""
        for line in lines:
            if written := len(line.strip()):
                self.lines += 1
                self.characters += written
            yield line

    def leave_out(self, line: str) -> None:
        """Counts a line that becomes part of no sentence."""
        if written := len(line.strip()):
            self.lines_left_out += 1
            self.characters_left_out += written


def sentences(
    file: TextFile, language: str = "en", on_read: OnRead = ignore, tally: Tally | None = None
) -> Iterator[str]:
    """The file's sentences and marks; the last is `DOCUMENT`.

    In the form `wikitext` each line is a document, in `python` each topic or module. In the other forms,
    `file.documents_end` decides where documents end: with the file or record, with each paragraph, or, for `parts`,
    where data/building/documents.py chooses among the marks. A heading, a rule, a form feed or several blank lines
    begin a part. `on_read` is called with the size of every block of bytes read. `tally` is updated. Raises
    `InputError` for a file that cannot be read.
    """
    tally = Tally() if tally is None else tally
    for lines in texts(file, on_read):
        normalised = map(nfc, tally.read(lines))
        if file.form == "wikitext":
            yield from _wikitext(normalised, tally)
        elif file.form == "python":
            # Punctuation is set off by spaces, as in WikiText, so that a word-level vocabulary holds plain words.
            prose = _prose(normalised, "en", _MARKS["paragraph"])
            yield from (_OUTER_PUNCTUATION.sub(r" \g<0> ", sentence) for sentence in prose)
        elif file.form == "lines":
            yield from _lines(normalised, file.documents_end)
        else:
            each_line = file.form == "paragraphs"
            marks = (_MARKS_OF_LINES if each_line else _MARKS)[file.documents_end]
            yield from _prose(normalised, rules_of(language), marks, each_line)
        yield DOCUMENT


def _wikitext(lines: Iterator[str], tally: Tally) -> Iterator[str]:
    # As in the notebook, a line that contains " . " is a document; others (headings, single sentences) are left out.
    for line in lines:
        if " . " in line:
            yield from _stripped(line.strip().replace("<unk>", "[UNK]").split(" . "))
            yield DOCUMENT
        else:
            tally.leave_out(line)


def _lines(lines: Iterator[str], documents_end: str) -> Iterator[str]:
    for line in map(str.strip, lines):
        if line:
            yield line
            if documents_end == "parts":
                yield PARAGRAPH
        elif documents_end != "file":
            yield DOCUMENT


def _prose(lines: Iterator[str], language: str, marks: _Marks, each_line: bool = False) -> Iterator[str]:
    # Of the current paragraph: the text not yet divided into sentences, the number of lines, the pieces divided so far.
    text, rows, pieces = "", 0, 0
    is_list = False  # whether lines that look like items are items: the first line did, or a sentence ends before one
    for line in chain(_paragraph_lines(lines, each_line), [""]):
        if line not in ("", PART, _BLANK):
            if _ITEM.match(line):
                is_list = is_list or not rows or text.endswith((":", "：")) or _is_first_item(text, line)
                if is_list:
                    yield from _stripped(_segment(language, text))
                    text = ""
            text = f"{text}{_space(text, line)}{line}"
            rows += 1
            if len(text) > PIECE:
                begin = 0
                while len(text) - begin > PIECE:
                    whole = _whole_sentences(text[begin : begin + PIECE], language)
                    yield from _stripped(whole)
                    begin += sum(map(len, whole))
                    pieces += 1
                    if pieces % _LONG_PARAGRAPH == 0:
                        yield from marks.within
                text = text[begin:].lstrip()
            continue
        if rows:
            if rows == 1 and not pieces and len(text) <= _HEADING_WIDTH and not _NO_HEADING.search(text):
                yield from marks.part
            yield from _stripped(_segment(language, text))
            yield from marks.paragraph
        if line == PART:
            yield from marks.part
        elif line == _BLANK:
            yield from marks.blank
        text, rows, pieces, is_list = "", 0, 0, False


def _is_first_item(text: str, line: str) -> bool:
    """Whether the line begins a list after the sentence that ends `text`. A number may be the sentence's: "no. 12."."""
    return _FULL_STOP.search(text) is not None and _FIRST_ITEM.match(line) is not None


def _paragraph_lines(lines: Iterator[str], each_line: bool) -> Iterator[str]:
    """The lines of prose, stripped; an empty one where a paragraph ends, and `PART` where a part may begin.

    `each_line`: each line is a paragraph, else blank lines end them.

    The result depends only on the lines since the last paragraph, so a file can be read in pieces.
    """
    blank = True
    for line in lines:
        for feeds, raw in enumerate(line.split("\f")):
            if feeds:
                yield PART
            written = raw.strip()
            if written.startswith(">"):
                written = _QUOTE.sub("", written)
            if not written:
                yield _BLANK if each_line else PART if blank else ""
            elif written[0] in _RULE and len(written) >= _RULE_WIDTH and _RULE.issuperset(written):
                yield PART
            elif written[0] == "`" and _FENCE.match(written):
                yield ""
            elif written[0] == "#" and _MARKDOWN_HEADING.match(written):
                yield from (PART, written, "")
            else:
                yield written
                if each_line:
                    yield ""
            blank = not written


def _stripped(sentences: Iterable[str]) -> Iterator[str]:
    """The sentences without the spaces around them, and without those that are nothing else: "" is a mark."""
    return filter(None, map(str.strip, sentences))


def _space(before: str, after: str) -> str:
    """The space between two lines of a paragraph; empty in scripts without spaces, and after a hyphen in a word."""
    if not before or (after[0] >= "\u0e00" and _UNSPACED.match(after) and _UNSPACED.match(before[-1])):
        return ""
    within = after[0].islower() and _HYPHENATED.search(before[-2:]) and after.split(maxsplit=1)[0] not in _JOINING
    return "" if within else " "


def _segment(language: str, text: str) -> list[str]:
    """The text divided into sentences by sentencex; joined, they give the text again.

    Where it divides within a name or after an abbreviation, the parts are joined, and where it misses a sentence's end,
    they are divided.
    """
    from sentencex import segment  # here, since built corpora and text of other forms don't need it

    sentences: list[str] = []
    for part in segment(language, text):
        if sentences and _continues(sentences[-1], part, language):
            sentences[-1] += part
        else:
            sentences.append(part)
    return [piece for sentence in sentences for piece in _divided(sentence, language)]


def _divided(sentence: str, language: str) -> list[str]:
    """What sentencex takes for one sentence, divided where it misses that one ends.

    sentencex never divides what begins with an item's mark, as in "(1) It is so. It was so."
    """
    within = sentence.rstrip()
    if not (". " in within or "! " in within or "? " in within):  # most sentences, and faster than a pattern
        return [sentence]
    if item := _MARKED.match(sentence):
        first, *others = _segment(language, sentence[item.end() :])
        return [item[0] + first, *others]
    pieces, begin = [], 0
    for stop in _STOP_WITHIN.finditer(sentence):
        if _is_open(sentence[: stop.end()]):
            continue
        if ends_sentence(sentence[begin : stop.end()], sentence[stop.end() :], language):
            pieces.append(sentence[begin : stop.end()])
            begin = stop.end()
    return [*pieces, sentence[begin:]]


def _is_open(text: str) -> bool:
    """Whether the text ends within a quotation or in brackets, which stay whole."""
    quotes = ("„", "“") if "„" in text else ("“", "”")
    pairs = (quotes, ("(", ")"), ("«", "»"), ("[", "]"))
    return text.count('"') % 2 == 1 or any(text.count(opening) > text.count(closing) for opening, closing in pairs)


def _continues(before: str, after: str, language: str) -> bool:
    """Whether `after` continues the sentence `before`.

    It does if `before` ends in an abbreviation ("e.g.", "M.") or is only the number of a list's item ("1."), if `after`
    begins with closing punctuation or says who spoke, and, in a script with spaces, if there is none after the stop.
    """
    if _ITEM.fullmatch(before) or after[0] in _CONTINUING or (after[0] in _CLOSING and not after[1:2].isalnum()):
        return True
    if after[0] in _DASHES and after[1:].lstrip()[:1].islower() and _SPEECH.search(before):
        return True
    if language == "ja" and _QUOTED.search(before) and _SAID.match(after):
        return True
    if before[-1].isspace():
        abbreviation = _ABBREVIATION.search(before[-END:])
        if abbreviation is not None and not abbreviation[0].rstrip()[-2].isupper():
            return True
        return expects_more(before, after, language)
    if _THAI_ABBREVIATION.search(before) and _THAI.match(after):
        return True
    return _FULL_STOP.search(before) is not None and not _UNSPACED.match(after)


def _whole_sentences(piece: str, language: str) -> list[str]:
    """A piece's sentences without the last, which may be incomplete; if it is the only one, all but its last word."""
    whole = _segment(language, piece)[:-1]
    return whole or [piece[: piece.rstrip().rfind(" ") + 1 or len(piece)]]
