"""Reads the text of HTML files: lines, with an empty one between paragraphs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from bertfast.data.readers.lines import MAX_LINE, MAX_RECORD, OnRead, ignore, text_blocks
from bertfast.errors import InputError

# Elements whose content is not part of the page's text.
_HIDDEN = {"script", "style", "title", "template", "noscript", "svg"}
# Elements that the HTML standard's style sheet displays as blocks, list items or table cells: they end a paragraph.
_BLOCKS = re.compile(
    "address|article|aside|blockquote|body|caption|center|dd|details|dialog|dir|div|dl|dt|fieldset|figcaption|figure|"
    "footer|form|h[1-6]|header|hgroup|hr|html|legend|li|listing|main|menu|nav|ol|optgroup|option|p|pre|search|section|"
    "summary|table|tbody|td|tfoot|th|thead|tr|ul"
)


class _Paragraphs(HTMLParser):
    """Collects lines of text; an empty line ends a paragraph."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[str] = []
        self._pieces: list[str] = []
        self._size = 0
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN:
            self._hidden += 1
        elif tag == "br":
            if not "".join(self._pieces).strip():  # a second one in a row
                self.lines.append("")
            self.end_line()
        else:
            self._break_paragraph(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        else:
            self._break_paragraph(tag)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._pieces.append(data)
            self._size += len(data)
            if self._size > MAX_LINE:
                text = "".join(self._pieces)
                end = text.rfind(" ") + 1 or len(text)
                self._pieces = [text[:end]]
                self.end_line()
                self._pieces = [text[end:]]

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        # The HTML standard treats this as a comment; the base class rejects some of them.
        return self.parse_bogus_comment(i, False)

    def end_line(self) -> None:
        if line := " ".join("".join(self._pieces).split()):
            self.lines.append(line)
        self._pieces.clear()
        self._size = 0

    def _break_paragraph(self, tag: str) -> None:
        if _BLOCKS.fullmatch(tag):
            self.end_line()
            self.lines.append("")


def html_lines(path: Path, on_read: OnRead = ignore) -> Iterator[str]:
    """The lines of an HTML file's text, with empty lines between paragraphs."""
    parser = _Paragraphs()
    for block in text_blocks(path, on_read):
        parser.feed(block)
        yield from parser.lines
        parser.lines.clear()
        if len(parser.rawdata) > MAX_RECORD:
            raise InputError(
                f"{path}: a tag, comment or script doesn't end within {MAX_RECORD >> 20} MiB: is it whole, and HTML?"
            )
    parser.close()
    parser.end_line()
    yield from parser.lines
