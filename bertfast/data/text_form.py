"""Detects a text's form, and what its documents are, from its beginning."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path

from bertfast.config import CorpusConfig
from bertfast.data.readers.kinds import is_markup, kind_of
from bertfast.data.readers.records import json_kind
from bertfast.data.text_file import TextFile, texts

# A file's form is detected from this many characters at its beginning.
SAMPLE = 1 << 16
# Lines of more columns than this are rarely wrapped ones.
_WIDEST = 120
# A file of more bytes than this is too long for one document.
LARGE = 1 << 20

_WIKITEXT_NAME = re.compile(r"wiki\.(train|valid|test)\.(tokens|raw)")
_WIKITEXT_HEADING = re.compile(r"= .+ =")
# If words average more characters than this, spaces included, spaces separate phrases, as in Thai. A line of such text
# is full if it has at least the share `_FULL` of the width.
_LONG_WORD = 12
_FULL = 0.85
# A smaller share of paragraphs' last lines may end like a sentence by chance.
_SOME_END = 0.15
# A number is among the line's first three words, as in "Jan 12 10:00:00" and "INFO 2024-01-12".
_NUMBER_FIRST = re.compile(r"(?:\S+\s+){0,2}\W*\d")
_SENTENCE_END = re.compile(r"[.!?…。！？।۔؟]['\"’”»)\]]*\s*$")
_STOP = r"[.!?…]['\"’”»)\]]*\s+"
_STOP_OF_OTHER_SCRIPTS = r"[。！？।۔؟]['\"’”»)\]]*\s*\w"
_SENTENCE_WITHIN = re.compile(rf"{_STOP}\S|{_STOP_OF_OTHER_SCRIPTS}")
# The same where a capital follows, or a letter of a script without them: not "et al. (2019)".
_NEXT_SENTENCE = re.compile(rf"{_STOP}['\"“„«(\[]*[^\W\d_a-zß-öø-ÿа-яё]|{_STOP_OF_OTHER_SCRIPTS}")


def detect(path: Path, config: CorpusConfig, alone: bool) -> TextFile:
    """The file, with the form and documents that `config` sets, or those detected from its name or its beginning.

    `alone`: whether it is the only file of its source.
    """
    kind = kind_of(path) or "text"
    if kind == "json":
        kind = json_kind(path)
    column = config.text_column if kind not in ("text", "html") else ""
    file = TextFile(path, "plain", kind, column, delimiter=config.delimiter)
    lines: list[str] = []
    size = 0
    for line in chain.from_iterable(chain(text, [""]) for text in texts(file)):
        size += len(line) + 1
        lines.append(line)
        if size > SAMPLE:
            break
    form = config.text_form
    if form == "auto":
        form = _detect_form(lines, kind, is_markup(path))
        if _WIKITEXT_NAME.fullmatch(path.name):
            form = "wikitext"
    documents = config.documents
    if documents == "auto" and kind == "text" and (alone or path.stat().st_size > LARGE):
        # In the forms `lines` and `paragraphs`, documents end at blank lines, if there are any.
        lone = form in ("lines", "paragraphs") and _blocks(lines) == 1
        documents = "parts" if form == "plain" or lone else "auto"
    return replace(file, form=form, documents=documents)


def _detect_form(lines: list[str], kind: str, markup: bool) -> str:
    """The form of a text, or of records, that begin with these lines."""
    if kind == "html" or markup:
        return "plain"
    nonblank = [line.strip() for line in lines if line.strip()]
    if kind == "text" and _is_wikitext(nonblank):
        return "wikitext"
    if _has_a_paragraph_a_line(lines) and not _is_wrapped(lines, nonblank):
        return "paragraphs"
    return "lines" if kind == "text" and _has_a_sentence_a_line(lines, nonblank) else "plain"


def _is_wikitext(nonblank: list[str]) -> bool:
    """Whether there are many headings, and most other lines are paragraphs with " . " between their sentences."""
    headings = sum(1 for line in nonblank if _WIKITEXT_HEADING.fullmatch(line))
    paragraphs = sum(1 for line in nonblank if " . " in f"{line} ")
    return headings >= max(2, len(nonblank) / 50) and paragraphs >= (len(nonblank) - headings) / 2


def _has_a_paragraph_a_line(lines: list[str]) -> bool:
    """Whether lines that follow one another are too long to be wrapped, and hold several sentences.

    Most of their text is then in such lines. What is left are headings and short paragraphs.
    """
    neighbours = [
        line
        for before, line, after in zip(["", *lines], lines, [*lines[1:], ""], strict=False)
        if line.strip() and (before.strip() or after.strip())
    ]
    long = [line for line in neighbours if _columns(line) > _WIDEST]
    several = sum(1 for line in long if _NEXT_SENTENCE.search(line))
    return several > 0.5 * len(long) and sum(map(len, long)) >= 0.5 * sum(map(len, neighbours))


def _columns(line: str) -> int:
    """How wide a terminal shows the line: a Chinese character takes two columns."""
    if line.isascii() or 2 * len(line) <= _WIDEST:
        return len(line)
    return len(line) + sum(1 for character in line if unicodedata.east_asian_width(character) in "WF")


def _blocks(lines: list[str]) -> int:
    """The number of blocks of lines, separated by blank ones."""
    return sum(1 for before, line in pairwise(["", *lines]) if line.strip() and not before.strip())


def _has_a_sentence_a_line(lines: list[str], nonblank: list[str]) -> bool:
    blocks = _blocks(lines)
    if len(nonblank) < 2 * blocks:  # each line is a paragraph
        return False
    inner = [line.strip() for line, after in pairwise(lines) if line.strip() and after.strip()]
    last = [line.strip() for line, after in pairwise([*lines, ""]) if line.strip() and not after.strip()]
    if _ending(inner) > 0.5:
        return blocks > 1  # in one block, `plain` finds the same sentences, or better ones if a line holds two
    if blocks > 1 and _wraps_sentences(inner, last):
        return False
    if len(nonblank) >= 10 * blocks and _numbered(nonblank):  # in blocks of ten lines or more
        return True
    if len(nonblank) < 10 or sum(1 for line in nonblank if _SENTENCE_WITHIN.search(line)) > 0.1 * len(nonblank):
        return False
    return not _is_wrapped(lines, nonblank)


def _wraps_sentences(inner: list[str], last: list[str]) -> bool:
    """Whether sentences end with paragraphs, rather than with lines inside them.

    Most paragraphs of prose end with a sentence. Where many are headings or list items, as in manuals, it is enough
    that their last lines end like a sentence several times as often as other lines.
    """
    ending = _ending(last)
    return ending > 0.5 or (ending > max(_SOME_END, 3 * _ending(inner)) and ending * len(last) >= 3)


def _numbered(nonblank: list[str]) -> bool:
    """Whether most lines begin with a date, a time or another number, as in logs. Wrapped prose never does."""
    return sum(1 for line in nonblank if _NUMBER_FIRST.match(line)) > 0.5 * len(nonblank)


def _ending(lines: list[str]) -> float:
    """The share of the lines that end like a sentence."""
    return sum(1 for line in lines if _SENTENCE_END.search(line)) / max(1, len(lines))


def _is_wrapped(lines: list[str], nonblank: list[str]) -> bool:
    """Whether lines end because they are full: few have room for the first word of the next line."""
    words = [len(line.split()) for line in nonblank]
    if sum(1 for count in words if count == 1) > 0.5 * len(nonblank):
        return False
    width = sorted(map(len, nonblank))[int(0.9 * len(nonblank))]
    breaks = [(line.strip(), after.split()[0]) for line, after in pairwise(lines) if line.strip() and after.strip()]
    if sum(map(len, nonblank)) > _LONG_WORD * sum(words):
        room = sum(1 for line, _ in breaks if len(line) < _FULL * width)
    else:
        room = sum(1 for line, word in breaks if len(line) + 1 + len(word) <= width)
    return room <= 0.5 * len(breaks)
