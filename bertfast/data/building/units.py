"""Cuts text into units, each read by one process at a time.

Small files are grouped. A large file is cut where that doesn't change the result: text and JSON lines between lines,
prose between paragraphs, parquet between row groups. A large file of another kind, or a compressed one, is a unit by
itself.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, pairwise
from pathlib import Path

from bertfast.data.readers.lines import BLOCK_BYTES, COMPRESSED, OnRead
from bertfast.data.sentences import Tally, sentences
from bertfast.data.text_file import TextFile

# The fewest bytes in a unit (except the last), and the most units.
UNIT = 2 << 20
MOST = 1024

_PARAGRAPH_END = re.compile(rb"\n\s*\n")


@dataclasses.dataclass(frozen=True)
class Unit:
    """Some files, or pieces of files, in order."""

    files: tuple[TextFile, ...]
    size: int
    """In bytes."""
    continues: bool
    """Whether its last document may continue in the next unit."""

    def sentences(self, language: str, on_read: OnRead, tallies: defaultdict[str, Tally]) -> Iterator[str]:
        """The files' sentences and marks, without the last mark if the document continues. Counts each form's text."""
        of_files = (sentences(file, language, on_read, tallies[file.form]) for file in self.files)
        stream = chain.from_iterable(of_files)
        return (sentence for sentence, _ in pairwise(stream)) if self.continues else stream


def units_of(files: Sequence[TextFile]) -> tuple[Unit, ...]:
    """The files' units. The cuts depend only on the files."""
    least = max(UNIT, sum(file.path.stat().st_size for file in files) // MOST)
    units: list[Unit] = []
    gathered: list[TextFile] = []
    size = 0
    for file in files:
        for piece, piece_size, continues in _pieces(file, least):
            gathered.append(piece)
            size += piece_size
            if size >= least or continues:
                units.append(Unit(tuple(gathered), size, continues))
                gathered, size = [], 0
    if gathered:
        units.append(Unit(tuple(gathered), size, False))
    return tuple(units)


def _pieces(file: TextFile, least: int) -> Iterator[tuple[TextFile, int, bool]]:
    """Pieces of about `least` bytes or more, their sizes, and whether a document may continue after each."""
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
            continues = file.kind == "text" and end < size
            yield dataclasses.replace(file, span=(begin, end)), end - begin, continues
            begin = end


def _cut(file: TextFile, target: int) -> int:
    """The first place at or after `target` to cut the file: after a paragraph that ends within a block, else a line."""
    with file.path.open("rb") as opened:
        position = opened.seek(target)
        block = opened.read(BLOCK_BYTES)
        if file.kind == "text" and file.form in ("paragraphs", "plain") and (paragraph := _PARAGRAPH_END.search(block)):
            return target + paragraph.end()
        while block and (end := block.find(b"\n")) < 0:
            position += len(block)
            block = opened.read(BLOCK_BYTES)
        return position + end + 1 if block else position


def _row_groups(path: Path, least: int) -> list[int]:
    """The ends of runs of row groups, each of about `least` bytes; `units_of` gathers smaller ones."""
    import pyarrow.parquet  # here, since importing it is slow

    metadata = pyarrow.parquet.read_metadata(path)
    sizes = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
    share = path.stat().st_size / max(1, sum(sizes))  # includes columns that aren't read
    runs = [int(total * share) // least for total in accumulate(sizes)]
    return [group for group, (run, after) in enumerate(pairwise([*runs, -1]), 1) if run != after]
