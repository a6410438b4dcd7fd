"""Folders and globs, links, every kind of file, and bad files among good ones."""

from __future__ import annotations

import errno
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from support.refusal import refusal

from bertfast.config import CorpusConfig
from bertfast.data.load import load_corpus
from bertfast.data.sentences import sentences
from bertfast.data.sources.find import Source, find_source
from bertfast.errors import InputError


def source(name: Path | str, **settings: Any) -> Source:
    return find_source(name, CorpusConfig(**settings), Path("no-cache"))


def names(found: Source, folder: Path) -> list[str]:
    return [file.path.relative_to(folder).as_posix() for file in found.files]


@pytest.fixture
def mixed(tmp_path):
    """One file of every kind."""
    text = "It rains. It pours.\n"
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.MD").write_text(text)
    (tmp_path / "c.rst.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "d.html").write_text(f"<p>{text}</p>")
    (tmp_path / "e.jsonl").write_text(json.dumps({"text": text}))
    (tmp_path / "f.ndjson.zst").write_bytes(pyarrow.compress(json.dumps({"text": text}).encode(), "zstd", asbytes=True))
    (tmp_path / "g.csv").write_text(f'id,text\n1,"{text}"\n')
    (tmp_path / "h.tsv").write_text(f'id\ttext\n1\t"{text}"\n')
    pyarrow.parquet.write_table(pyarrow.table({"text": [text]}), tmp_path / "i.parquet")
    (tmp_path / "l.json").write_text(json.dumps([{"text": text}], indent=1))
    (tmp_path / "m.json.gz").write_bytes(gzip.compress(json.dumps({"text": text}).encode()))
    return tmp_path


def test_a_folder_of_every_kind(mixed):
    found = source(mixed)
    assert len(found.files) == 11
    for file in found.files:
        assert [*filter(None, sentences(file))] == ["It rains.", "It pours."], file
    assert found.description == (
        f"{mixed} (3 files: plain; 1 file: html, plain; 3 files: jsonl, plain; 1 file: csv, plain; 1 file: tsv, plain; "
        "1 file: parquet, plain; 1 file: json, plain)"
    )


def test_globs(mixed, monkeypatch):
    (mixed / "deep/er").mkdir(parents=True)
    (mixed / "deep/er/j.jsonl").write_text("")
    (mixed / "k.log").write_text("It rains.")
    assert names(source(f"{mixed}/*.jsonl"), mixed) == ["e.jsonl"]
    assert names(source(f"{mixed}/**/*.jsonl"), mixed) == ["deep/er/j.jsonl", "e.jsonl"]
    assert names(source(f"{mixed}/[ad]*"), mixed) == ["a.txt", "d.html", "deep/er/j.jsonl"]
    found = source(f"{mixed}/[ak]*")
    assert names(found, mixed) == ["a.txt"]
    assert found.description == f"{mixed}/[ak]*: 1 file of other kinds left out: .log (plain)"
    assert names(source(f"{mixed}/*.log"), mixed) == ["k.log"]  # the glob names the suffix
    monkeypatch.chdir(mixed)
    assert [str(file.path) for file in source("*.html").files] == ["d.html"]
    (mixed / "[ad].txt").write_text("It snows.")
    assert [str(file.path) for file in source("[ad].txt").files] == ["[ad].txt"]


def test_a_glob_without_a_match(tmp_path):
    assert refusal(source, f"{tmp_path}/*.jsonl") == f"nothing matches {tmp_path}/*.jsonl"


def test_links_are_followed(tmp_path):
    for folder in ("texts", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "elsewhere/a.txt").write_text("It rains.")
    (tmp_path / "texts/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "texts/b.txt").symlink_to(tmp_path / "elsewhere/a.txt")
    assert names(source(tmp_path / "texts"), tmp_path / "texts") == ["b.txt", "link/a.txt"]


@pytest.mark.parametrize(
    ("link", "target", "message"),
    [
        ("loop", ".", "{0}/loop is a symbolic link to a folder around it, {0}: remove the link"),
        ("in/loop", "..", "{0}/in/loop is a symbolic link to a folder around it, {0}: remove the link"),
        ("b.txt", "gone.txt", "{0}/b.txt is a symbolic link that leads nowhere: gone.txt"),
        ("b.txt", "b.txt", "{0}/b.txt is a symbolic link that leads nowhere: b.txt"),
    ],
)
def test_broken_links(tmp_path, link, target, message):
    (tmp_path / "in").mkdir()
    (tmp_path / "a.txt").write_text("It rains.")
    (tmp_path / link).symlink_to(target)
    message = message.format(tmp_path)
    assert refusal(source, tmp_path) == refusal(source, f"{tmp_path}/**") == message
    found = source(tmp_path, skip_bad_files=True)
    assert names(found, tmp_path) == ["a.txt"]
    assert found.description.endswith(f"; 1 bad left out, the first: {message})")


def test_a_broken_link_given_by_name(tmp_path):
    (tmp_path / "a.txt").symlink_to("gone.txt")
    assert refusal(source, tmp_path / "a.txt") == f"{tmp_path}/a.txt is a symbolic link that leads nowhere: gone.txt"


@pytest.fixture
def closed(tmp_path, monkeypatch) -> Path:
    """A folder that lists its files but may not be searched, beside a text."""
    folder = tmp_path / "texts" / "closed"
    folder.mkdir(parents=True)
    for path in (folder / "a.txt", folder.parent / "b.txt"):
        path.write_text("It rains.")
    stat = os.stat

    def refuse(path, **how):
        if not isinstance(path, int) and Path(path).parent == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **how)

    monkeypatch.setattr(os, "stat", refuse)  # for chmod means nothing to root
    return folder


def test_a_folder_that_may_not_be_searched(closed, tmp_path):
    message = f"cannot read {closed}: Permission denied"
    texts = closed.parent
    assert refusal(source, texts) == refusal(source, f"{texts}/*") == message
    found = source(texts, skip_bad_files=True)
    assert names(found, texts) == ["b.txt"]
    assert found.description.endswith(f"; 1 bad left out, the first: {message})")
    for name in (closed / "a.txt", closed / "*.txt"):
        assert refusal(load_corpus, name, cache_dir=tmp_path) == f"cannot read {name}: Permission denied"


BAD = {
    "image.txt": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "latin.txt": "Il était une fois.".encode("latin-1"),
    "utf16.md": "It rains.".encode("utf-16"),
    "short.txt.gz": gzip.compress(b"It rains. " * 99)[:-9],
    "short.txt.zst": pyarrow.compress(b"It rains. " * 99, "zstd", asbytes=True)[:-9],
    "utf32.json": '{"text": "It rains."}'.encode("utf-32"),
    "prose.json": b"It rains.",
    "cut.json": b'[{"text": "It rains."}',
    "string.json": b'["It rains."]',
    "half.jsonl": b'{"text": "It rai',
    "other.jsonl": b'{"body": "It rains."}',
    "row.csv": b"id,text\n1\n",
    "damaged.parquet": b"PAR1 and so on",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_or_skipped(mixed, name):
    (mixed / name).write_bytes(BAD[name])
    message = refusal(source, mixed)
    assert message.startswith(str(mixed / name))
    found = source(mixed, skip_bad_files=True)
    assert found.description.endswith(f"; 1 bad left out, the first: {message})")
    assert len(found.files) == 11
    assert name not in names(found, mixed)


def test_suffixes_left_out_are_named_with_their_compression(tmp_path):
    (tmp_path / "a.txt").write_text("It rains.")
    for name in ("b.tar.gz", "c.PDF", "d.xml.ZST", "e.gz", "Makefile"):
        (tmp_path / name).touch()
    assert source(tmp_path).description == (
        f"{tmp_path}: 5 files of other kinds left out: .PDF .gz .tar.gz .xml.ZST Makefile (plain)"
    )


def test_a_delimiter(tmp_path):
    (tmp_path / "a.csv").write_text("id;text\n1;It rains, it pours.\n")
    (tmp_path / "b.tsv").write_text("id\ttext\n1\tIt snows; it hails.\n")
    found = source(tmp_path, delimiter=";")
    texts = [list(filter(None, sentences(file))) for file in found.files]
    assert texts == [["It rains, it pours."], ["It snows; it hails."]]
    assert refusal(source, tmp_path / "a.csv").endswith("a.csv has one column, 'id;text': give --delimiter ';'")
    (tmp_path / "c.csv").write_text("id\ttext\n1\tIt snows.\n")
    assert refusal(source, tmp_path / "c.csv").endswith("'id\\ttext': give it a name that ends in .tsv")
    (tmp_path / "d.csv").write_text("content\nIt snows.\n")
    assert refusal(source, tmp_path / "d.csv").endswith(
        "no column 'text'; there are 'content': name one with --text-column"
    )
    for delimiter in ("", ";;", '"', "\n"):
        with pytest.raises(InputError, match="--delimiter must be one character"):
            CorpusConfig(delimiter=delimiter)


def test_only_bad_files(tmp_path):
    (tmp_path / "a.txt").write_bytes(BAD["latin.txt"])
    message = refusal(source, tmp_path, skip_bad_files=True)
    assert message.startswith(f"no file of {tmp_path} can be read: {tmp_path}/a.txt is not UTF-8: byte 3 (")


def test_an_empty_file_among_good_ones(mixed):
    (mixed / "nothing.txt").touch()
    found = source(mixed)
    assert len(found.files) == 12
    assert found.description.endswith("; 1 of them empty)")


def test_only_records_have_a_column(mixed):
    for file in source(mixed).files:
        assert file.column == ("" if file.kind in ("text", "html") else "text")
    assert refusal(source, mixed, text_column="body") == (
        f"{mixed}/e.jsonl:1: no column 'body'; there are 'text': name one with --text-column"
    )


def test_a_folder_with_a_training_split_gives_only_that(write, tmp_path):
    for name in ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"):
        write("A sentence.", name)
    found = source(tmp_path)
    assert [file.path.name for file in found.files] == ["wiki.train.tokens"]
    assert "the training split wiki.train.tokens alone, without wiki.valid.tokens and wiki.test.tokens" in (
        found.description
    )


def test_a_folder_without_a_training_split_gives_all_files(write, tmp_path):
    names = ["b.txt", "valid.txt", "a/deep/c.md", "a/d.raw", "e.text", "f.tokens"]
    for name in [*names, ".hidden.txt", ".git/x.txt", "image.png", "script.py"]:
        write("A sentence.", name)
    found = source(tmp_path)
    assert [file.path.relative_to(tmp_path).as_posix() for file in found.files] == sorted(names)
    assert "6 files: plain" in found.description
    assert ": 2 files of other kinds left out: .png .py (" in found.description


@pytest.mark.parametrize(
    ("kind", "files"), [("a run", ("run.json", "metrics.jsonl")), ("a built corpus", ("manifest.json", "tokens.bin"))]
)
def test_what_bertfast_writes_is_no_text(write, tmp_path, kind, files):
    """So a run can be resumed whose folder is beside its text."""
    for name in ("a.txt", *(f"made/{file}" for file in (*files, "README.md")), "half/run.json", "half/b.txt"):
        write("A sentence.", name)
    for name in (tmp_path, f"{tmp_path}/*"):
        found = source(name, skip_bad_files=True)
        assert [file.path.name for file in found.files] == ["a.txt", "b.txt"]
        assert f"{kind} left out: {tmp_path / 'made'}" in found.description
    assert refusal(source, tmp_path / "made") == f"{tmp_path / 'made'} is {kind}, not text: name the text"


def test_train_txt_without_held_out_files_is_no_split(write, tmp_path):
    write("A sentence.", "train.txt")
    write("A sentence.", "more.txt")
    assert [file.path.name for file in source(tmp_path).files] == ["more.txt", "train.txt"]


def test_no_such_path(tmp_path):
    assert refusal(source, tmp_path / "nowhere") == f"no such file or folder: {tmp_path}/nowhere"


def test_a_folder_without_text(write, tmp_path):
    write("x", "a.png")
    assert refusal(source, tmp_path) == (
        f"no text files in {tmp_path} (1 file of other kinds left out: .png): bertfast reads .txt, .text, .tokens, "
        ".raw, .md, .markdown, .rst, .html, .htm, .jsonl, .ndjson, .json, .csv, .tsv, .parquet, each also with .gz or "
        ".zst"
    )


def test_not_a_regular_file():
    line = "/dev/null is neither a file nor a folder: give - and the text on standard input"
    assert refusal(source, Path("/dev/null")) == line
