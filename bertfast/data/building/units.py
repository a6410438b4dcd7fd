"""Cuts text into units: what one process reads at a time.

Small files are taken together; a large one is cut where that changes nothing: text and JSON lines between lines, prose
between paragraphs, parquet between row groups. A large file of another kind, or a compressed one, is a unit of its own.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

from bertfast.data.readers.lines import BLOCK_BYTES, COMPRESSED, OnRead
from bertfast.data.sentences import Tally, sentences
from bertfast.data.text_file import TextFile

# The fewest bytes in a unit (but the last), and the most units.
UNIT = 2 << 20
MOST = 1024

_PARAGRAPH_END = re.compile(rb"\n\s*\n")


@dataclasses.dataclass(frozen=True)
class Unit:
    """Some files, or pieces of files, in their order."""

    files: tuple[TextFile, ...]
    size: int
    """In bytes."""
    goes_on: bool
    """Whether its last document may go on in the next unit."""

    def sentences(self, language: str, on_read: OnRead, tallies: dict[str, Tally] | None = None) -> Iterator[str]:
        """The files' sentences and marks; after a document that goes on, no mark. Counts the text of each form."""
        tallies = {} if tallies is None else tallies
        *before, last = self.files
        for file in before:
            yield from sentences(file, language, on_read, tallies.setdefault(file.form, Tally()))
        stream = sentences(last, language, on_read, tallies.setdefault(last.form, Tally()))
        if self.goes_on:
            yield from (sentence for sentence, _ in pairwise(stream))  # the last one is the end of a document
        else:
            yield from stream


def units_of(files: Sequence[TextFile]) -> tuple[Unit, ...]:
    """The files' units. Where they are cut follows from the files alone."""
    least = max(UNIT, sum(file.path.stat().st_size for file in files) // MOST)
    units: list[Unit] = []
    gathered: list[TextFile] = []
    size = 0
    for file in files:
        for piece, piece_size, goes_on in _pieces(file, least):
            gathered.append(piece)
            size += piece_size
            if size >= least or goes_on:
                units.append(Unit(tuple(gathered), size, goes_on))
                gathered, size = [], 0
    if gathered:
        units.append(Unit(tuple(gathered), size, False))
    return tuple(units)


def _pieces(file: TextFile, least: int) -> Iterator[tuple[TextFile, int, bool]]:
    """Pieces of `least` bytes or somewhat more, their sizes, and whether a document may go on behind them."""
    size = file.path.stat().st_size
    whole = size < 2 * least or file.path.suffix.lower() in COMPRESSED
    if whole or file.kind not in ("text", "jsonl", "parquet") or file.form == "python":
        yield file, size, False
    elif file.kind == "parquet":
        ends = _row_groups(file.path, least)
        for begin, end in pairwise([0, *ends]):
            piece_size = size * end // ends[-1] - size * begin // ends[-1]
            yield dataclasses.replace(file, span=(begin, end)), piece_size, False
    else:
        begin = 0
        while begin < size:
            end = size if size - begin < 2 * least else _cut(file, begin + least)
            goes_on = file.kind == "text" and end < size
            yield dataclasses.replace(file, span=(begin, end)), end - begin, goes_on
            begin = end


def _cut(file: TextFile, target: int) -> int:
    """Where to cut the file, from `target` on: after a paragraph, if one ends within a block, else after a line."""
    with file.path.open("rb") as opened:
        position = opened.seek(target)
        block = opened.read(BLOCK_BYTES)
        if file.kind == "text" and file.form == "plain" and (paragraph := _PARAGRAPH_END.search(block)):
            return target + paragraph.end()
        while block and (end := block.find(b"\n")) < 0:
            position += len(block)
            block = opened.read(BLOCK_BYTES)
        return position + end + 1 if block else position


def _row_groups(path: Path, least: int) -> list[int]:
    """The ends of runs of row groups, each of `least` bytes or more."""
    import pyarrow.parquet  # here, for it takes a while

    metadata = pyarrow.parquet.read_metadata(path)
    sizes = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
    share = path.stat().st_size / max(1, sum(sizes))  # columns that aren't read count too: units are alike in rows
    runs = [int(total * share) // least for total in accumulate(sizes)]
    return [group for group, (run, after) in enumerate(pairwise([*runs, -1]), 1) if run != after]
