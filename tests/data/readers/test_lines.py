"""The bytes and lines of files, compressed or not; damaged files are refused."""

from __future__ import annotations

import gzip
import io
import re
import subprocess
import tracemalloc
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertfast.data.readers import lines
from bertfast.data.readers.lines import lines_of, record_lines, text_lines, whole_lines
from bertfast.errors import InputError

TEXT = "".join(f"Line {i} of a text, é 漢 {'x' * (i % 90)}\n" for i in range(5000))


def zstd(content: bytes) -> bytes:
    return pyarrow.compress(content, "zstd", asbytes=True)


COMPRESS = {".gz": gzip.compress, ".zst": zstd}


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("reader", [text_lines, whole_lines])
def test_compressed_in_several_members(tmp_path, suffix, reader):
    path, content = tmp_path / f"a.txt{suffix}", TEXT.encode()
    path.write_bytes(b"".join(COMPRESS[suffix](part) for part in (content[:70_001], content[70_001:])))
    sizes: list[int] = []
    found = [line.removesuffix("\n") for line in reader(path, sizes.append)]
    assert found == TEXT.splitlines()
    assert sum(sizes) == path.stat().st_size


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("reader", [text_lines, whole_lines])
def test_compressed_and_cut_short(tmp_path, suffix, reader):
    whole = COMPRESS[suffix](TEXT.encode())
    path = tmp_path / f"a.txt{suffix}"
    for size in (1, 3, 11, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"a\.txt.* is cut short or damaged \(.+\): get it again") as refused:
            list(reader(path))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_and_damaged(tmp_path, suffix):
    path = tmp_path / f"a.txt{suffix}"
    whole = bytearray(COMPRESS[suffix](TEXT.encode()))
    for content in (b"no such thing", bytes(whole) + b"and more", whole[:1000] + bytes(10) + whole[1010:]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is cut short or damaged"):
            list(text_lines(path))


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_an_empty_file_has_no_lines(tmp_path, suffix):
    path = tmp_path / f"a.txt{suffix}"
    path.touch()
    assert list(text_lines(path)) == list(whole_lines(path)) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"good\ncaf\xe9\n", "is not UTF-8: byte 8 (invalid continuation byte); convert it, with iconv for example"),
        (
            b"caf\xc3\xa9\ncaf\xe9\n",
            "is not UTF-8: byte 9 (invalid continuation byte); what comes before is UTF-8, so the file ",
        ),
        (b"good\nb\0d\n", "is not text: byte 6 is zero; give UTF-8 text files"),
        ("Good.\n".encode("utf-16-be"), "is UTF-16, by its zero bytes: convert it"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not text: byte 8 is zero"),
    ],
)
def test_an_error_names_the_byte_that_is_not_text(tmp_path, content, message):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        list(text_lines(path))
    assert str(refused.value).startswith(f"{path} {message}")
    if b"PNG" not in content:  # its first line ends before the zero byte
        with pytest.raises(InputError) as refused:
            list(whole_lines(path))
        assert str(refused.value).startswith(f"{path} {message}")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-7", "gb18030"])
@pytest.mark.parametrize("reader", [text_lines, whole_lines])
@pytest.mark.parametrize("text", ["It rains in Zürich, 漢.\nIt pours.\n", "\n"])
def test_the_byte_order_mark_of_another_encoding(tmp_path, encoding, reader, text):
    """The message names the encoding; after the conversion that it suggests, the file can be read."""
    path = tmp_path / "a.txt"
    path.write_bytes(f"\ufeff{text}".encode(encoding))
    with pytest.raises(InputError) as refused:
        list(reader(path))
    advice = re.fullmatch(
        rf"{path} is (\S+), by its byte order mark: convert it \((iconv -f \1 -t UTF-8)\), and give the result",
        str(refused.value),
    )
    assert advice, refused.value
    converted = subprocess.run([*advice[2].split(), str(path)], capture_output=True, check=True).stdout
    path.write_bytes(converted)
    assert [line.removesuffix("\n") for line in reader(path)] == text.splitlines()


def test_a_line_of_50_mb_takes_little_memory(tmp_path):
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        for _ in range(50):
            file.write(b"word " * 200_000)
    tracemalloc.start()
    try:
        total = largest = 0
        for line in text_lines(path):
            total, largest = total + len(line), max(largest, len(line))
            assert line.endswith(" ")  # split between words
        assert total == 50_000_000
        assert largest <= lines.MAX_LINE + lines.BLOCK_BYTES
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_whole_lines_have_a_maximum_length(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAX_RECORD", 1 << 20)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"ab\n" + b"x" * ((1 << 20) - 1) + b"\n")
    assert [len(line) for line in whole_lines(path)] == [3, 1 << 20]
    path.write_bytes(b"ab\n" + b"x" * (1 << 20) + b"\n")
    with pytest.raises(InputError, match=r"a\.jsonl: the line that begins at byte 3 is longer than 1 MiB"):
        list(whole_lines(path))


def test_lines_of_a_text_in_memory(monkeypatch):
    text = "a\r\nb\rc\n\nd\u2028e"
    assert list(lines_of(text)) == [line.removesuffix("\n") for line in io.StringIO(text, newline=None)]
    monkeypatch.setattr(lines, "MAX_LINE", 10)
    assert list(lines_of("one two three\n" + "x" * 25)) == ["one two ", "three", "x" * 10, "x" * 10, "x" * 5]


def test_a_missing_file(tmp_path):
    for reader in (text_lines, whole_lines):
        with pytest.raises(InputError, match=r"^cannot read .*gone\.txt: No such file or directory$"):
            list(reader(Path(tmp_path, "gone.txt")))


@given(st.text("a\n\r \x0b\x85\u2028é漢𝄞"), st.integers(1, 9))
def test_block_boundaries_do_not_change_the_lines(tmp_path_factory, content, block):
    path = tmp_path_factory.mktemp("lines") / "some.txt"
    path.write_bytes(content.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", block)
        found = list(lines.text_lines(path))
    assert found == [line.removesuffix("\n") for line in io.StringIO(content, newline=None)]


def test_a_long_line_without_spaces_is_split(write, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE", 100)
    monkeypatch.setattr(lines, "BLOCK_BYTES", 30)
    found = list(lines.text_lines(write("x" * 1000)))
    assert "".join(found) == "x" * 1000
    assert max(map(len, found)) <= 130


@given(st.text("a\r\n", max_size=12))
def test_record_lines_are_those_of_universal_newlines(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("lines") / "a.csv"
    path.write_bytes(text.encode())
    assert list(record_lines(path)) == text.splitlines(keepends=True)
