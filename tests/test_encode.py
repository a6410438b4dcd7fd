"""`python -m bertfast.encode`: what it reads is what pretraining reads, a row each."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from support.saved_model import save

from bertfast import encode
from bertfast.inference import vectors_file
from bertfast.inference.encoder import Encoder

TEXTS = ["a crane is flying", "", "a crane driver came", "he just left , is he ?"]

pytestmark = pytest.mark.usefixtures("cache")


def run(model: Path, capsys, *arguments: object) -> tuple[int, str, str]:
    status = encode.main(["--model", str(model), *map(str, arguments)])
    return status, *capsys.readouterr()


def records(**more) -> list[dict[str, object]]:
    return [{"id": i, "text": text, **more} for i, text in enumerate(TEXTS)]


WRITE = {
    "a.txt": lambda path: path.write_text("".join(f"{text}\r\n" for text in TEXTS), newline=""),
    "old.txt": lambda path: path.write_text("".join(f"{text}\r" for text in TEXTS), newline=""),
    "a.txt.gz": lambda path: path.write_bytes(gzip.compress("\n".join(TEXTS).encode())),
    "a.jsonl": lambda path: path.write_text("\n\n".join(map(json.dumps, records()))),
    "a.json": lambda path: path.write_text(json.dumps(records())),
    "b.json": lambda path: path.write_text("".join(json.dumps(record) + "\n" for record in records())),
    "a.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(records()).encode())),
    "q.csv": lambda path: path.write_text("id,text\n" + "".join(f'1,"{text}"\n' for text in TEXTS)),
    "a.tsv": lambda path: path.write_text("id\ttext\n" + "".join(f"1\t{text}\n" for text in TEXTS)),
    "a.parquet": lambda path: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records()), path),
}


@pytest.mark.parametrize("name", WRITE)
def test_a_row_for_each_text(saved_model, tmp_path, capsys, name):
    WRITE[name](tmp_path / name)
    status, output, errors = run(saved_model, capsys, "--input", tmp_path / name, "--out", tmp_path / "v.npy")
    assert (status, output) == (0, ""), errors
    assert "4 vectors of 128 numbers in" in errors
    assert np.array_equal(np.load(tmp_path / "v.npy"), Encoder.load(saved_model).embed(TEXTS).numpy())


def test_a_row_for_each_paragraph_of_html(saved_model, tmp_path, capsys):
    (tmp_path / "a.html").write_text("<p>a crane<br>is flying<p>a crane driver came<br><br>he just left")
    assert run(saved_model, capsys, "--input", tmp_path / "a.html", "--out", tmp_path / "v.npy")[0] == 0
    paragraphs = ["a crane is flying", "a crane driver came", "he just left"]
    assert np.array_equal(np.load(tmp_path / "v.npy"), Encoder.load(saved_model).embed(paragraphs).numpy())


def test_more_texts_than_a_block(saved_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(vectors_file, "_BLOCK", 3)
    (tmp_path / "a.txt").write_text("\n".join(TEXTS * 2))
    assert run(saved_model, capsys, "--input", tmp_path / "a.txt", "--out", tmp_path / "v.npy")[0] == 0
    assert np.array_equal(np.load(tmp_path / "v.npy"), Encoder.load(saved_model).embed(TEXTS * 2).numpy())


def test_a_nested_column_and_a_delimiter(saved_model, tmp_path, capsys):
    nested = [{"data": {"body": text}} for text in TEXTS]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, nested)))
    (tmp_path / "a.csv").write_text("id;body\n" + "".join(f'1;"{text}"\n' for text in TEXTS))
    for name, *options in (["a.jsonl", "--text-column", "data.body"], ["a.csv", "--text-column", "body"]):
        options += ["--delimiter", ";", "--out", tmp_path / "v.npy"]
        assert run(saved_model, capsys, "--input", tmp_path / name, *options)[0] == 0
        assert np.load(tmp_path / "v.npy").shape == (4, 128)


@pytest.mark.parametrize("content", ["\n".join(TEXTS), "\n".join(map(json.dumps, records()))])
def test_standard_input(saved_model, tmp_path, capsys, monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert run(saved_model, capsys, "--input", "-", "--out", tmp_path / "v.npy")[0] == 0
    assert np.array_equal(np.load(tmp_path / "v.npy"), Encoder.load(saved_model).embed(TEXTS).numpy())


def test_a_single_text(saved_model, tmp_path, capsys):
    status, output, _ = run(saved_model, capsys, TEXTS[0], "--out", tmp_path / "v.npy")
    assert (status, output) == (0, "")
    assert np.array_equal(np.load(tmp_path / "v.npy"), Encoder.load(saved_model).embed(TEXTS[:1]).numpy())
    status, output, _ = run(saved_model, capsys, TEXTS[0])
    assert status == 0
    assert output.startswith("encoded text (1, 6, 128), [CLS] (1, 128)\n")


@pytest.fixture(scope="module")
def accented(tmp_path_factory) -> Path:
    """A model that knows a word with an accent, which its tokenizer keeps."""
    return save(tmp_path_factory.mktemp("accented"), "word", words=["caf\u00e9", "a"])


def test_decomposed_text_is_composed(accented, tmp_path, capsys):
    """As in training."""
    composed, decomposed = "a caf\u00e9", "a cafe\u0301"
    for text in (composed, decomposed):
        (tmp_path / "a.txt").write_text(f"{text}\n", encoding="utf-8")
        assert run(accented, capsys, "--input", tmp_path / "a.txt", "--out", tmp_path / "v.npy")[0] == 0
        assert np.array_equal(np.load(tmp_path / "v.npy"), Encoder.load(accented).embed([composed]).numpy())
        assert run(accented, capsys, text, "--out", tmp_path / "v.npy")[0] == 0
        assert np.array_equal(np.load(tmp_path / "v.npy"), Encoder.load(accented).embed([composed]).numpy())
    printed = [run(accented, capsys, text, text)[1] for text in (composed, decomposed)]
    assert printed[0] == printed[1]
    assert printed[0].count("caf\u00e9") == 2


@pytest.mark.parametrize("arguments", [["a", "b"], ["a", ""]])
def test_a_pair_for_a_model_of_one_token_type(tmp_path, capsys, arguments):
    save(tmp_path, type_vocab_size=1)
    line = "error: the model has one token type, a pair of texts needs two: give one text\n"
    assert run(tmp_path, capsys, *arguments) == (2, "", line)
    assert run(tmp_path, capsys, "a")[0] == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}', ":2: no column 'text'; there are 'body': name one with"),
        ("a.json", b'[{"text": "a"}, {"text": 5}]', ", record 2: 'text' holds a number, not text"),
        ("a.csv", b"id,text\n1\n", ":2: a row of 1 fields"),
        ("a.txt", b"caf\xe9", " is not UTF-8: byte 3"),
        ("a.txt", "He left.".encode("utf-32"), " is UTF-32, by its byte order mark"),
        # Far behind what is looked at first.
        ("a.txt", b"he left\n" * 20_000 + b"\xff", " is not UTF-8: byte 160000"),
    ],
)
def test_bad_input_leaves_nothing(saved_model, tmp_path, capsys, monkeypatch, name, content, message):
    monkeypatch.setattr(Encoder, "load", lambda folder: pytest.fail("it begins to encode"))
    (tmp_path / name).write_bytes(content)
    status, output, errors = run(saved_model, capsys, "--input", tmp_path / name, "--out", tmp_path / "v.npy")
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert errors.startswith(f"error: {tmp_path / name}{message}")
    assert {path.name for path in tmp_path.iterdir()} <= {name, "cache"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a text, or --input FILE with --out FILE.npy"),
        (["a", "--input", "b"], "give a text, or --input FILE with --out FILE.npy"),
        (["--input", "b"], "--input needs --out FILE.npy, the array to write"),
        (["a", "--layer", "0"], "--layer is for vectors: give --out FILE.npy, or leave it out"),
        (["a", "b", "--text-column", "x"], "--text-column is for records: give --input FILE, or leave it out"),
        (["a", "--delimiter", ";", "--out", "v.npy"], "--delimiter is for records: give --input FILE, or leave it out"),
        (["a", "--out", "folder.npy"], "--out folder.npy is a folder: name a file in it"),
        (["a", "b", "--out", "v.npy"], "--out takes a vector for each text, and a pair has none"),
        (["a", "--out", "v.txt"], "--out v.txt must end in .npy"),
        (["a", "--out", "nowhere/v.npy"], "--out nowhere/v.npy: the folder nowhere does not exist: create it first"),
        (["--input", "nowhere.txt", "--out", "v.npy"], "no such file or folder: nowhere.txt"),
    ],
)
def test_wrong_arguments(saved_model, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("folder.npy").mkdir()
    status, output, errors = run(saved_model, capsys, *arguments)
    assert (status, output) == (2, "")
    assert errors.startswith(f"error: {message}")
