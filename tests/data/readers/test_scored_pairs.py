"""Scored pairs in SemEval's format."""

from __future__ import annotations

import gzip
import re

import pytest

from bertfast.data.readers.scored_pairs import ScoredPairs, read_scored_pairs
from bertfast.errors import InputError

LINES = '4\tHe left.\tHe is gone.\n\n0.8\t"Then" he left\t"Then he came.\r\n-1e0\tx\t\n'
EXPECTED = ScoredPairs(["He left.", '"Then" he left', "x"], ["He is gone.", '"Then he came.', ""], [4.0, 0.8, -1.0])


@pytest.mark.parametrize("header", ["", "score\tsentence1\tsentence2\n"])
def test_pairs_are_read_as_written(tmp_path, header):
    (tmp_path / "a.tsv").write_text(header + LINES, newline="")
    assert read_scored_pairs(tmp_path / "a.tsv") == EXPECTED
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress((header + LINES).encode()))
    assert read_scored_pairs(tmp_path / "a.tsv.gz") == EXPECTED


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end(tmp_path, end):
    (tmp_path / "a.tsv").write_text(LINES.replace("\r\n", "\n").replace("\n", end), newline="")
    assert read_scored_pairs(tmp_path / "a.tsv") == EXPECTED


def test_texts_are_composed(tmp_path):
    (tmp_path / "a.tsv").write_text("1\tcafe\u0301\te\u0301t\u00e9\n", encoding="utf-8")
    assert read_scored_pairs(tmp_path / "a.tsv") == ScoredPairs(["caf\u00e9"], ["\u00e9t\u00e9"], [1.0])


def test_a_byte_order_mark_alone_is_an_empty_file(tmp_path):
    (tmp_path / "a.tsv").write_text("", encoding="utf-8-sig")
    assert read_scored_pairs(tmp_path / "a.tsv") == ScoredPairs([], [], [])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("4\ta\tb\n3\ta\n", 2),
        ("4\ta\tb\n\nscore\ta\tb\n", 3),
        ("4\ta\tb\tc\n", 1),
        ("4\ta\tb\nnan\ta\tb\n", 2),
        ("score\ta\n", 1),
    ],
)
def test_an_error_names_the_line(tmp_path, content, line):
    (tmp_path / "a.tsv").write_text(content)
    message = f"{tmp_path / 'a.tsv'}:{line}: expected a score, a text and a text, separated by tabs: fix that line"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        read_scored_pairs(tmp_path / "a.tsv")


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match=r"no such file: .*nowhere\.tsv"):
        read_scored_pairs(tmp_path / "nowhere.tsv")
    with pytest.raises(InputError, match=r"^/dev/null is a folder, pipe or device: name a file$"):
        read_scored_pairs("/dev/null")
