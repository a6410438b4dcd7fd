"""Fuzzes every reader with corrupted files: each raises InputError or returns a valid result.

Files are corrupted in their bytes and, if they are JSON, in their values too, to get past the parser. (test_native.py
fuzzes the extension's entry points.)
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
from bertfast.data.tokenizing.tokenizer import Tokenizer
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


def json_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of keys to each value of a JSON document."""
    found = [path]
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        found += json_paths(child, (*path, key))
    return found


def with_changed_value(content: Any, rng: random.Random) -> Any:
    path = rng.choice(json_paths(content))
    if not path:
        return rng.choice(VALUES)
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    kind = rng.randrange(4)
    if kind == 0:
        del parent[path[-1]]
    elif kind == 1 and isinstance(parent, dict):
        parent[rng.choice(["x", "", *map(str, parent)])] = parent.pop(path[-1])
    elif kind == 2 and isinstance(parent[path[-1]], int):
        parent[path[-1]] += rng.choice([-1, 1])
    else:
        parent[path[-1]] = rng.choice(VALUES)
    return content


def with_changed_bytes(content: bytes, rng: random.Random) -> bytes:
    corrupted = bytearray(content)
    for _ in range(rng.choice([1, 1, 3])):
        begin = rng.randrange(len(corrupted) + 1)
        end = min(len(corrupted), begin + rng.choice([0, 1, 8, 100]))
        kind = rng.randrange(6)
        if kind == 0 and begin < len(corrupted):
            corrupted[begin] ^= 1 << rng.randrange(8)
        elif kind == 1:
            corrupted[begin:end] = rng.randbytes(end - begin)
        elif kind == 2:
            del corrupted[begin:end]
        elif kind == 3:
            corrupted[begin:begin] = corrupted[rng.randrange(len(corrupted) + 1) :][:50]
        elif kind == 4:
            del corrupted[begin:]
        else:
            corrupted[begin:end] = rng.choice([b"", b"\0", b"\xff\xfe", b"\n", b"null", b'"', b"}", b"9" * 5000, DEEP])
    return bytes(corrupted)


def corrupt(path: Path, rng: random.Random) -> None:
    if rng.randrange(30) == 0:
        path.unlink()
        if rng.randrange(2):
            path.mkdir()
        return
    content = path.read_bytes()
    if path.suffix == ".json" and rng.randrange(3):
        value = json.loads(content)
        for _ in range(rng.choice([1, 1, 2])):
            value = with_changed_value(value, rng)
        path.write_text(json.dumps(value), encoding="utf-8")
    else:
        path.write_bytes(with_changed_bytes(content, rng))


# --- the readers: `make` fills a folder once, `read` reads corrupted copies of it


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
    ids, types, _ = tokenizer.encode("a crane, über all\n[MASK]", "he left")
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
    # A size that is large but valid would really be allocated.
    if max(load_config(folder)[0].__dict__.values()) < 1000:
        load_pretrained(folder)


def make_modules(folder: Path) -> None:
    make_model(folder)
    save_modules(folder, load_pretrained(folder).model, EncodeConfig())
    for path in (folder / "model.safetensors", folder / "README.md"):
        path.unlink()


def read_modules(folder: Path) -> None:
    load_modules(folder, load_config(folder)[0], Tokenizer.load(folder))


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
def intact_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for reader, (make, _) in READERS.items():
        made[reader] = tmp_path_factory.mktemp("whole")
        make(made[reader])
    return made


def fuzz(reader: str, seed: int, whole: Path) -> None:
    rng = random.Random(seed)
    folder = whole.with_name(f"{whole.name}-corrupted")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in rng.sample(files, min(len(files), rng.choice([1, 1, 1, 2]))):
        corrupt(path, rng)
        if reader == "checkpoint" and path.is_file() and rng.randrange(4):
            fix_digest(path)
    with contextlib.suppress(InputError, OSError):  # the commands report an OSError in one line too
        READERS[reader][1](folder)


def fix_digest(path: Path) -> None:
    """Replaces the digest at the end with that of the corrupted bytes, as an attacker would."""
    content = path.read_bytes()[:-16]
    path.write_bytes(content + checkpoint.hashlib.blake2b(content, digest_size=16).digest())


HEALTH = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@pytest.mark.parametrize("reader", READERS)
def test_intact_files_are_read(intact_folders: dict[str, Path], reader: str) -> None:
    READERS[reader][1](intact_folders[reader])


@pytest.mark.parametrize("reader", READERS)
@given(seed=st.integers(0, 2**64 - 1))
@settings(max_examples=60, derandomize=True, suppress_health_check=HEALTH)
def test_fuzz(intact_folders: dict[str, Path], reader: str, seed: int) -> None:
    fuzz(reader, seed, intact_folders[reader])


def change(path: str, value: Any) -> Callable[[bytes], bytes]:
    def apply(content: bytes) -> bytes:
        whole = parent = json.loads(content)
        *keys, last = path.split(".")
        for key in keys:
            parent = parent[key]
        parent[last] = value
        return json.dumps(whole).encode()

    return apply


# Corruptions that the long fuzzing found: reader, file, change.
REGRESSIONS: list[tuple[str, str, Callable[[bytes], bytes]]] = [
    ("word tokenizer", "tokenizer.json", change("model.unk_token", "x")),
    ("corpus", "tokens.bin", lambda content: b"\xff\xff" + content[2:]),
    ("model", "config.json", change("initializer_range", math.nan)),
    ("run.json", "run.json", change("corpus.part", [math.inf, 1])),
]


@pytest.mark.parametrize(("reader", "file", "corruption"), REGRESSIONS)
def test_corruptions_that_fuzzing_found(
    intact_folders: dict[str, Path], tmp_path: Path, reader: str, file: str, corruption: Callable[[bytes], bytes]
) -> None:
    shutil.copytree(intact_folders[reader], folder := tmp_path / "corrupted")
    (folder / file).write_bytes(corruption((folder / file).read_bytes()))
    with pytest.raises(InputError):
        READERS[reader][1](folder)


@pytest.mark.parametrize("value", ["null", '"x"', "[]", "{}", "[" * 100_000])
def test_metrics_lines_that_fuzzing_found(tmp_path: Path, value: str) -> None:
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
def test_fuzz_long(intact_folders: dict[str, Path], reader: str, seed: int) -> None:
    fuzz(reader, seed, intact_folders[reader])
