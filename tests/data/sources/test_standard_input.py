"""Standard input as a source, from a real pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.refusal import refusal

from bertfast.config import CorpusConfig
from bertfast.data.sentences import MARKS, sentences
from bertfast.data.sources.find import find_source

Read = Callable[[bytes], tuple[Path, str, list[str]]]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Read:
    """The file, its kind and its sentences, of bytes that come through a pipe."""

    def read(content: bytes) -> tuple[Path, str, list[str]]:
        reading, writing = os.pipe()
        with os.fdopen(reading) as stdin, monkeypatch.context() as patch:
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(content)
            patch.setattr(sys, "stdin", stdin)
            source = find_source("-", CorpusConfig(), tmp_path)
        [file] = source.files
        kind = "" if file.kind == "text" else f"{file.kind}, "
        assert source.description == f"standard input ({kind}plain)"
        assert capfd.readouterr() == ("", "")
        return file.path, file.kind, [each for each in sentences(file) if each not in MARKS]

    return read


def test_equal_text_is_stored_once(read: Read) -> None:
    path, *rest = first = read(b"It rains. It pours.\n")
    assert rest == ["text", ["It rains.", "It pours."]]
    assert path.read_bytes() == b"It rains. It pours.\n"
    assert read(b"It rains. It pours.\n") == first
    assert read(b"It snows. It pours.\n")[0] != path
    assert len(list(path.parent.glob("*.txt"))) == 2


@pytest.mark.parametrize(
    ("content", "suffix", "kind", "sentence"),
    [
        (b'{"text": "It rains."}\n', ".jsonl", "jsonl", "It rains."),
        (b'\xef\xbb\xbf\n{"text": "It rains."}\n', ".jsonl", "jsonl", "It rains."),
        (b"{It rains.}\n", ".txt", "text", "{It rains.}"),
        (b' [\n{"text": "It rains."}]', ".json", "json", "It rains."),
        (b"[1] It rains.\n", ".txt", "text", "[1] It rains."),
    ],
)
def test_json_is_recognised(read: Read, content: bytes, suffix: str, kind: str, sentence: str) -> None:
    path, *rest = read(content)
    assert path.suffix == suffix
    assert rest == [kind, [sentence]]


@pytest.mark.parametrize(
    ("content", "workers", "message"),
    [
        (b"", "1", "standard input is empty"),
        (b"Text.", "2", "several workers can't share standard input: build a corpus from it first"),
    ],
)
def test_empty_input_and_several_workers_are_refused(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, workers: str, message: str
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", workers)
    assert refusal(read, content).startswith(message)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
