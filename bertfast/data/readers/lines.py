"""Reads a file's decompressed bytes and its UTF-8 lines in blocks, so that memory use doesn't grow with the file."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from bertfast.errors import InputError, require_package

if TYPE_CHECKING:
    from typing_extensions import Buffer

BLOCK_BYTES = 1 << 20
_BUFFER_BYTES = 1 << 17
# Longer lines are split.
MAX_LINE = 1 << 20
# The longest record, or HTML tag or script, that is held in memory as a whole.
MAX_RECORD = 1 << 26

COMPRESSED = (".gz", ".zst")


def _encoded(encoding: str, sign: str) -> str:
    return f"{encoding}, by its {sign}: convert it (iconv -f {encoding} -t UTF-8), and give the result"


# How files begin that are not UTF-8, what they are, and the way out. UTF-32's little-endian mark begins with UTF-16's.
_BEGINNINGS = {
    mark: _encoded(encoding, "byte order mark")
    for encoding, marks in {
        "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
        "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
        "UTF-7": (b"+/v8", b"+/v9", b"+/v+", b"+/v/"),
        "GB18030": (b"\x84\x31\x95\x33",),
    }.items()
    for mark in marks
} | {
    b"\x1f\x8b": "compressed by gzip: give it a name that ends in .gz",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard: give it a name that ends in .zst",
    **dict.fromkeys(
        (b"BZh%d1AY&SY" % size for size in range(1, 10)), "compressed by bzip2: decompress it, and give the result"
    ),
    b"\xfd7zXZ\x00": "compressed by xz: decompress it, and give the result",
    b"PK\x03\x04": "an archive, as .zip, .docx and .epub are: extract its text, and give the result",
    b"%PDF-": "a PDF: extract its text, and give the result",
}

_AFTER_CR = re.compile(r"(?<=\r)(?!\n)")

OnRead = Callable[[int], object]
# The range of bytes to read of an uncompressed file, end excluded; None: all.
Span = tuple[int, int] | None


def ignore(size: int) -> None:
    """The `on_read` for callers that show no progress."""


class _Counted(io.RawIOBase):
    """The bytes of a file, or of its span. Calls `on_read` with the size of every block."""

    def __init__(self, path: Path, on_read: OnRead, span: Span) -> None:
        self._file = path.open("rb", buffering=0)
        self._on_read = on_read
        self._left = sys.maxsize
        if span:
            self._file.seek(span[0])
            self._left = span[1] - span[0]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        size = self._file.readinto(memoryview(buffer)[: self._left]) or 0
        self._left -= size
        self._on_read(size)
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def opened(path: Path, on_read: OnRead = ignore, span: Span = None) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed if its name ends in .gz or .zst, for sequential reading.

    `on_read` is called with the size of every block read from the file, before decompression. Raises `InputError` for a
    file that cannot be opened, and while reading for data that is truncated or damaged.
    """
    suffix = path.suffix.lower()
    try:
        with io.BufferedReader(_Counted(path, on_read, span), _BUFFER_BYTES) as file:
            if suffix == ".gz":
                with gzip.GzipFile(fileobj=file) as unzipped:
                    yield cast(BinaryIO, unzipped)
            elif suffix == ".zst":
                require_package("pyarrow", f"reading {path}")
                import pyarrow  # here, since importing it is slow

                with io.BufferedReader(pyarrow.CompressedInputStream(file, "zstd"), _BUFFER_BYTES) as unzipped:
                    yield unzipped
            else:
                yield file
    except (EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"cannot read {path}: {error.strerror}") from None
        raise InputError(f"{path} is cut short or damaged ({error}): get it again, or compress it again") from None


def text_blocks(path: Path, on_read: OnRead = ignore, span: Span = None) -> Iterator[str]:
    """The text of a UTF-8 file, or of its span, in blocks: without a byte order mark, and with "\\n" as line ends."""
    position, all_ascii = span[0] if span else 0, True
    decoder = codecs.getincrementaldecoder("utf-8" if position else "utf-8-sig")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    with opened(path, on_read, span) as file:
        while True:
            block = file.read(BLOCK_BYTES)
            _check_text(path, position, block)
            position += len(block)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                # The decoder's input was what it kept of the previous block, then this block.
                before = error.object[: error.start].decode("utf-8")
                byte = position - len(error.object) + error.start
                raise _not_utf8(path, byte, error.reason, all_ascii and before.isascii()) from None
            all_ascii = all_ascii and text.isascii()
            yield newlines.decode(text, final=not block)
            if not block:
                return


def text_lines(path: Path, on_read: OnRead = ignore, span: Span = None) -> Iterator[str]:
    """The lines of a UTF-8 file, or of its span, without line ends. Long lines are split, at a space if possible."""
    rest = ""
    for block in text_blocks(path, on_read, span):
        *lines, rest = (rest + block).split("\n")
        yield from lines
        if len(rest) > MAX_LINE:
            end = rest.rfind(" ") + 1 or len(rest)
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest


def lines_of(text: str) -> Iterator[str]:
    """The lines of a text in memory. Long ones are split, at a space if possible."""
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        begin = 0
        while len(line) - begin > MAX_LINE:
            end = line.rfind(" ", begin, begin + MAX_LINE) + 1 or begin + MAX_LINE
            yield line[begin:end]
            begin = end
        yield line[begin:]


def whole_lines(path: Path, on_read: OnRead = ignore, span: Span = None) -> Iterator[str]:
    """The lines of a UTF-8 file, or of its span, with their line ends. Only "\\n" ends a line; none is split.

    Raises `InputError` for a line that is too long.
    """
    position, all_ascii = span[0] if span else 0, True
    with opened(path, on_read, span) as file:
        while line := file.readline(MAX_RECORD + 1):
            if len(line) > MAX_RECORD:
                raise InputError(
                    f"{path}: the line that begins at byte {position} is longer than {MAX_RECORD >> 20} MiB, "
                    "too long for one record: split it"
                )
            _check_text(path, position, line)
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                all_ascii = all_ascii and line[: error.start].decode("utf-8").isascii()
                raise _not_utf8(path, position + error.start, error.reason, all_ascii) from None
            all_ascii = all_ascii and text.isascii()
            yield text if position else text.removeprefix("\ufeff")
            position += len(line)


def record_lines(path: Path, on_read: OnRead = ignore) -> Iterator[str]:
    """Like `whole_lines`, but "\\r" alone, with which old Macs ended lines, ends one, too."""
    for line in whole_lines(path, on_read):
        if "\r" in line.removesuffix("\r\n"):
            yield from filter(None, _AFTER_CR.split(line))
        else:
            yield line


def _check_text(path: Path, position: int, block: bytes) -> None:
    """Raises InputError for bytes that can't be UTF-8 text."""
    for beginning, found in _BEGINNINGS.items() if position == 0 else ():
        if block.startswith(beginning):
            raise InputError(f"{path} is {found}")
    if b"\0" in block:
        if position == 0 and any(block[:100]) and not (any(block[:100:2]) and any(block[1:100:2])):
            raise InputError(f"{path} is {_encoded('UTF-16', 'zero bytes')}")
        raise InputError(f"{path} is not text: byte {position + block.index(0)} is zero; give UTF-8 text files")


def _not_utf8(path: Path, byte: int, reason: str, ascii_before: bool) -> InputError:
    way_out = (
        "convert it, with iconv for example"
        if ascii_before
        else "what comes before is UTF-8, so the file mixes encodings: convert only the rest"
    )
    return InputError(f"{path} is not UTF-8: byte {byte} ({reason}); {way_out}")
