"""Everything that is read back from a disk, spoiled: only InputError, or a right result.

Files are spoiled as bytes, and, where they hold JSON, as values too, so that not only the parser is reached. (The
entries of the extension are fuzzed by test_native.py.)
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.checkpoints import Training
from support.processes import write_texts
from support.run_info import INFO

from bertfast.config import BertConfig, CorpusConfig, EncodeConfig
from bertfast.data.corpus import Corpus
from bertfast.data.load import load_corpus
from bertfast.data.tokenizer import Tokenizer
from bertfast.errors import InputError
from bertfast.hub.sentence_transformers import load_modules, save_modules
from bertfast.hub.transformers import load_config, load_pretrained, save_model
from bertfast.model import Bert
from bertfast.reporting.metrics import Evaluation, History, Record
from bertfast.reporting.run_info import RunInfo
from bertfast.reporting.times import Times
from bertfast.training import checkpoint

VALUES: list[Any] = [None, True, False, -1, 0, 1, 7, 2**31, 2**63, 2**64, 10**30, 1.5, -0.0, math.nan, math.inf, 1e308]
VALUES += ["", "x", "[UNK]", "\ud800", "\0", "x" * 5000, [], [[]], [1, 2], {}, {"x": None}, {"type": "BPE"}]
DEEP = b"[" * 100_000


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The keys that lead to each value in JSON's content."""
    found = [place]
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        found += places(child, (*place, key))
    return found


def with_another_value(content: Any, rng: random.Random) -> Any:
    place = rng.choice(places(content))
    if not place:
        return rng.choice(VALUES)
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    kind = rng.randrange(4)
    if kind == 0:
        del parent[place[-1]]
    elif kind == 1 and isinstance(parent, dict):
        parent[rng.choice(["x", "", *map(str, parent)])] = parent.pop(place[-1])
    elif kind == 2 and isinstance(parent[place[-1]], int):
        parent[place[-1]] += rng.choice([-1, 1])
    else:
        parent[place[-1]] = rng.choice(VALUES)
    return content


def with_other_bytes(content: bytes, rng: random.Random) -> bytes:
    spoiled = bytearray(content)
    for _ in range(rng.choice([1, 1, 3])):
        begin = rng.randrange(len(spoiled) + 1)
        end = min(len(spoiled), begin + rng.choice([0, 1, 8, 100]))
        kind = rng.randrange(6)
        if kind == 0 and begin < len(spoiled):
            spoiled[begin] ^= 1 << rng.randrange(8)
        elif kind == 1:
            spoiled[begin:end] = rng.randbytes(end - begin)
        elif kind == 2:
            del spoiled[begin:end]
        elif kind == 3:
            spoiled[begin:begin] = spoiled[rng.randrange(len(spoiled) + 1) :][:50]
        elif kind == 4:
            del spoiled[begin:]
        else:
            spoiled[begin:end] = rng.choice([b"", b"\0", b"\xff\xfe", b"\n", b"null", b'"', b"}", b"9" * 5000, DEEP])
    return bytes(spoiled)


def spoil(path: Path, rng: random.Random) -> None:
    if rng.randrange(30) == 0:
        path.unlink()
        if rng.randrange(2):
            path.mkdir()
        return
    content = path.read_bytes()
    if path.suffix == ".json" and rng.randrange(3):
        value = json.loads(content)
        for _ in range(rng.choice([1, 1, 2])):
            value = with_another_value(value, rng)
        path.write_text(json.dumps(value), encoding="utf-8")
    else:
        path.write_bytes(with_other_bytes(content, rng))


# --- the readers: each makes a folder once, and reads what has been made of it


def make_corpus(folder: Path) -> None:
    texts = write_texts(folder / "texts.txt", 5)
    corpus = load_corpus(texts, config=CorpusConfig(min_freq=1), cache_dir=folder / "cache", progress=False)
    for path in corpus.folder.iterdir():
        path.rename(folder / path.name)
    shutil.rmtree(folder / "cache")
    texts.unlink()


def read_corpus(folder: Path) -> None:
    corpus = Corpus.open(folder)
    assert corpus.num_documents >= 1
    assert (np.diff(corpus.sentence_offsets) > 0).all()
    assert corpus.sentence_offsets[-1] == len(corpus.tokens)
    assert corpus.document_offsets[-1] == corpus.num_sentences
    assert len(corpus.token_counts) == len(corpus.continuation) == corpus.vocab_size
    corpus.documents(0, 1)
    corpus.tokenizer.encode_sentences(["a crane is flying"])


def make_checkpoint(folder: Path) -> None:
    training = Training(folder)
    training.step()
    training.writer.save_now(1)


def read_checkpoint(folder: Path) -> None:
    training = Training(folder.with_name("another"))
    found = checkpoint.newest(folder / "checkpoints")
    if found is not None:
        checkpoint.misfit(found, training.model, training.optimizer)


def make_tokenizer(folder: Path, kind: str) -> None:
    texts = write_texts(folder / "texts.txt", 5)
    config = CorpusConfig(min_freq=1, tokenizer=kind)
    corpus = load_corpus(texts, config=config, cache_dir=folder / "cache", progress=False)
    corpus.tokenizer.save(folder, 64)
    shutil.rmtree(folder / "cache")
    texts.unlink()


def make_vocabulary(folder: Path) -> None:
    make_tokenizer(folder, "wordpiece")
    (folder / "tokenizer.json").unlink()


def read_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    ids, types = tokenizer.encode("a crane, über all\n[MASK]", "he left")
    assert len(ids) == len(types)
    assert all(0 <= id < tokenizer.vocab_size for id in ids)
    assert len(tokenizer.continuation) == tokenizer.vocab_size
    tokenizer.encode_sentences(["a crane is flying", ""])


def make_model(folder: Path) -> None:
    make_tokenizer(folder, "word")
    config = BertConfig(
        vocab_size=40, hidden_size=8, num_attention_heads=2, intermediate_size=8, max_position_embeddings=16
    )
    save_model(Bert(config), folder)
    (folder / "README.md").write_text("---\nbase_model: owner/name\n---\n")


def read_model(folder: Path) -> None:
    # A size that is only large, and not wrong, would take the memory for it.
    if max(load_config(folder).__dict__.values()) < 1000:
        load_pretrained(folder)


def make_modules(folder: Path) -> None:
    make_model(folder)
    save_modules(folder, load_pretrained(folder).model, EncodeConfig())
    for path in (folder / "model.safetensors", folder / "README.md"):
        path.unlink()


def read_modules(folder: Path) -> None:
    load_modules(folder, load_config(folder), Tokenizer.load(folder))


def make_metrics(folder: Path) -> None:
    history = History(folder / "metrics.jsonl")
    for step in range(4):
        history.add(Record(step, 1.5, 0.5, 0.1, 2.5, 700))
    history.add(Evaluation(3, 1.5, 4.5, 0.1))


def read_metrics(folder: Path) -> None:
    history = History(folder / "metrics.jsonl", 4)
    history.complete()
    again = History(folder / "metrics.jsonl", 4)
    assert repr(history.records) == repr(again.records)
    assert repr(history.evaluations) == repr(again.evaluations)


def make_times(folder: Path) -> None:
    times = Times(folder / "times.jsonl", 0)
    for step in range(4):
        times.add(step, 1.5 * step)


def read_times(folder: Path) -> None:
    Times(folder / "times.jsonl", 4).add(4, 1.5)


READERS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "corpus": (make_corpus, read_corpus),
    "checkpoint": (make_checkpoint, read_checkpoint),
    "word tokenizer": (lambda folder: make_tokenizer(folder, "word"), read_tokenizer),
    "wordpiece tokenizer": (lambda folder: make_tokenizer(folder, "wordpiece"), read_tokenizer),
    "vocab.txt": (make_vocabulary, read_tokenizer),
    "model": (make_model, read_model),
    "modules": (make_modules, read_modules),
    "run.json": (INFO.write, RunInfo.read),
    "metrics.jsonl": (make_metrics, read_metrics),
    "times.jsonl": (make_times, read_times),
}


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for reader, (make, _) in READERS.items():
        made[reader] = tmp_path_factory.mktemp("whole")
        make(made[reader])
    return made


def fuzz(reader: str, seed: int, whole: Path) -> None:
    rng = random.Random(seed)
    folder = whole.with_name(f"{whole.name}-spoiled")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in rng.sample(files, min(len(files), rng.choice([1, 1, 1, 2]))):
        spoil(path, rng)
        if reader == "checkpoint" and path.is_file() and rng.randrange(4):
            with_its_digest(path)
    with contextlib.suppress(InputError, OSError):  # command lines tell an OSError in a line too
        READERS[reader][1](folder)


def with_its_digest(path: Path) -> None:
    """Makes the last bytes the digest of those before, as who means harm would."""
    content = path.read_bytes()[:-16]
    path.write_bytes(content + checkpoint.hashlib.blake2b(content, digest_size=16).digest())


HEALTH = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@pytest.mark.parametrize("reader", READERS)
def test_nothing_spoiled(wholes: dict[str, Path], reader: str) -> None:
    READERS[reader][1](wholes[reader])


@pytest.mark.parametrize("reader", READERS)
@given(seed=st.integers(0, 2**64 - 1))
@settings(max_examples=60, derandomize=True, suppress_health_check=HEALTH)
def test_fuzz(wholes: dict[str, Path], reader: str, seed: int) -> None:
    fuzz(reader, seed, wholes[reader])


def change(place: str, value: Any) -> Callable[[bytes], bytes]:
    def apply(content: bytes) -> bytes:
        whole = parent = json.loads(content)
        *keys, last = place.split(".")
        for key in keys:
            parent = parent[key]
        parent[last] = value
        return json.dumps(whole).encode()

    return apply


# What the long fuzzing found, by reader and file.
FOUND: list[tuple[str, str, Callable[[bytes], bytes]]] = [
    ("word tokenizer", "tokenizer.json", change("model.unk_token", "x")),
    ("corpus", "tokens.bin", lambda content: b"\xff\xff" + content[2:]),
    ("model", "config.json", change("initializer_range", math.nan)),
    ("run.json", "run.json", change("corpus.part", [math.inf, 1])),
]


@pytest.mark.parametrize(("reader", "file", "spoil_it"), FOUND)
def test_what_fuzzing_found(
    wholes: dict[str, Path], tmp_path: Path, reader: str, file: str, spoil_it: Callable[[bytes], bytes]
) -> None:
    shutil.copytree(wholes[reader], folder := tmp_path / "spoiled")
    (folder / file).write_bytes(spoil_it((folder / file).read_bytes()))
    with pytest.raises(InputError):
        READERS[reader][1](folder)


@pytest.mark.parametrize("value", ["null", '"x"', "[]", "{}", "[" * 100_000])
def test_lines_of_metrics_that_fuzzing_found(tmp_path: Path, value: str) -> None:
    path = tmp_path / "metrics.jsonl"
    make_metrics(tmp_path)
    whole = path.read_text().splitlines()
    for line in (value, f'{{"step": {value}, "mlm_loss": 1, "nsp_loss": 1, "lr": 1}}'):
        path.write_text("\n".join([*whole[:2], line, *whole[2:]]))
        assert [record.step for record in History(path, 4).records] == [0, 1, 2, 3]


@pytest.mark.long
@pytest.mark.parametrize("reader", READERS)
@given(seed=st.integers(0, 2**64 - 1))
@settings(max_examples=10_000, database=None, suppress_health_check=HEALTH)
def test_fuzz_long(wholes: dict[str, Path], reader: str, seed: int) -> None:
    fuzz(reader, seed, wholes[reader])
