"""Standard input as a source, from a real pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
from bertfast.config import CorpusConfig
from bertfast.errors import InputError
from bertfast.data.sources.find import find_source
from bertfast.data.sentences import MARKS, sentences
try:
    source = find_source("-", CorpusConfig(), Path(sys.argv[1]))
    print(source.description)
    for file in source.files:
        print(file.path, file.kind, *(each for each in sentences(file) if each not in MARKS), sep="|")
except InputError as error:
    print("error:", error)
"""


def run(cache: Path, content: bytes, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(cache)],
        input=content,
        capture_output=True,
        check=True,
        env={**os.environ, **environment},
    )
    assert done.stderr == b""
    return done.stdout.decode().splitlines()


def test_equal_text_is_stored_once(tmp_path):
    first = run(tmp_path, b"It rains. It pours.\n")
    assert first[0] == "standard input (plain)"
    path, *rest = first[1].split("|")
    assert rest == ["text", "It rains.", "It pours."]
    assert Path(path).read_bytes() == b"It rains. It pours.\n"
    assert run(tmp_path, b"It rains. It pours.\n") == first
    assert run(tmp_path, b"It snows. It pours.\n")[1].split("|")[0] != path
    assert len(list(Path(path).parent.glob("*.txt"))) == 2


def test_json_lines_are_recognised(tmp_path):
    assert run(tmp_path, b'{"text": "It rains."}\n')[1].endswith(".jsonl|jsonl|It rains.")
    assert run(tmp_path, b'\xef\xbb\xbf\n{"text": "It rains."}\n')[1].endswith(".jsonl|jsonl|It rains.")
    assert run(tmp_path, b"{It rains.}\n")[1].endswith(".txt|text|{It rains.}")


def test_a_json_array_is_recognised(tmp_path):
    assert run(tmp_path, b' [\n{"text": "It rains."}]')[1].endswith(".json|json|It rains.")
    assert run(tmp_path, b"[1] It rains.\n")[1].endswith(".txt|text|[1] It rains.")


@pytest.mark.parametrize(
    ("content", "workers", "message"),
    [
        (b"", "1", "error: standard input is empty"),
        (b"Text.", "2", "error: several workers can't share standard input: build a corpus from it first"),
    ],
)
def test_empty_input_and_several_workers_are_refused(tmp_path, content, workers, message):
    [line] = run(tmp_path, content, RANK="0", WORLD_SIZE=workers)
    assert line.startswith(message)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
