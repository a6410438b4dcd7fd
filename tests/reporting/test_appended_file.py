"""A file of lines: how it is cut back to a step, and that a full disk leaves no half line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.full_disk import full_disk

from bertfast.reporting.appended_file import AppendedFile, cut_back


def step_of(line: bytes) -> int | None:
    word = line.strip()
    return int(word) if word.isdigit() else None


steps = st.integers(0, 9).map(lambda step: b"%d\n" % step)
damaged = st.sampled_from([b"\n", b"4 and more\n", b"\xff\n", b"-3\n"])


@given(st.lists(steps | damaged, max_size=8), st.sampled_from([b"", b"5", b"half a"]), st.integers(0, 10))
@example([], b"", 0)
@example([], b"half a", 3)
@example([b"0\n", b"1\n"], b"", 0)
def test_what_is_left_ends_before_the_step(tmp_path_factory, lines: list[bytes], rest: bytes, step: int):
    """Lines are dropped from the end: those of the step and later ones, damaged ones, and one cut short."""
    path = tmp_path_factory.mktemp("cut") / "lines"
    path.write_bytes(b"".join(lines) + rest)
    ends = [i for i, line in enumerate(lines, 1) if step_of(line) is not None and step_of(line) < step]
    expected = b"".join(lines[: max(ends, default=0)])
    assert cut_back(path, step, step_of) == expected
    assert path.read_bytes() == expected


def test_a_missing_file_is_made(tmp_path: Path):
    assert cut_back(tmp_path / "lines", 3, step_of) == b""
    assert (tmp_path / "lines").read_bytes() == b""


def test_lines_are_appended_at_once(tmp_path: Path):
    path = tmp_path / "lines"
    path.write_bytes(b"0\n")
    file = AppendedFile(path)
    for end, line in enumerate([b"1\n", b"2\n"], 2):
        file.add(line)
        assert path.read_bytes() == b"0\n1\n2\n"[: 2 * end]
    file.write()
    assert path.read_bytes() == b"0\n1\n2\n"


def test_without_a_file_every_line_is_dropped(said: list[str]):
    file = AppendedFile(None)
    file.add(b"0\n")
    file.write()
    assert said == []


def test_a_full_disk_loses_no_line(tmp_path: Path, said: list[str]):
    """Not a byte of a refused line stays; each row of failures is reported once."""
    path = tmp_path / "lines"
    path.write_bytes(b"line 0\n")
    file = AppendedFile(path)
    for row, begin in enumerate((1, 4), 1):
        before = path.read_bytes()
        with full_disk(len(before) + 3):
            for number in (begin, begin + 1):
                file.add(b"line %d\n" % number)
                assert path.read_bytes() == before
            with pytest.raises(OSError, match="File too large"):
                file.write()
        assert path.read_bytes() == before
        assert said == [f"warning: {path} can't be written: File too large; the lines are kept and written later"] * row
        file.add(b"line %d\n" % (begin + 2))
        assert path.read_bytes() == b"".join(b"line %d\n" % number for number in range(begin + 3))


def test_lines_wait_until_the_file_can_be_written(tmp_path: Path, said: list[str]):
    """At the end of a run no further line comes that would write them."""
    path = tmp_path / "lines"
    path.touch()
    file = AppendedFile(path)
    with full_disk(0):
        file.add(b"0\n")
    file.write()
    assert path.read_bytes() == b"0\n"
    assert len(said) == 1
