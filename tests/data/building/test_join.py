"""Tokenised units joined into a corpus, which is complete or absent."""

from __future__ import annotations

import json
import weakref
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.trained_tokenizer import train_word

from bertfast.config import CorpusConfig
from bertfast.data.building.chunks import Split, write_chunk
from bertfast.data.building.join import Origin, join
from bertfast.data.corpus import Corpus
from bertfast.data.deduplication import repeats
from bertfast.data.sentences import DOCUMENT, MARKS
from bertfast.errors import InputError

A, B, C, D, E, NOTHING = "a b .", "b .", "c a z", "c c .", "a .", " "
TOKENIZER = train_word(["a b . c ."], CorpusConfig(min_freq=1))
TEXT = {"documents": {"a file": 1}, "forms": {}}
# The chunks of two files. The second document begins in the first file and ends in the second. An empty one
# begins a chunk.
STREAMS = [
    [[A, B, DOCUMENT, DOCUMENT, NOTHING, DOCUMENT, A], [C, NOTHING]],
    [[DOCUMENT, A, B, DOCUMENT, B, DOCUMENT], [DOCUMENT, B, D, DOCUMENT, A, E, DOCUMENT]],
]
DOCUMENTS = [[A, B], [A, C], [A, B], [B], [B, D], [A, E]]
WITHOUT_REPEATS = [[A, B], [C], [D], [E]]


def joined(folder: Path, streams: list[list[list[str]]] = STREAMS, **settings: Any):
    folder.mkdir(exist_ok=True)
    parts = []
    for number, stream in enumerate(streams):
        parts.append(folder / f"part {number}")
        with parts[-1].open("wb") as file:
            for each in stream:
                write_chunk(file, Split.of(each, at_spaces=True).encoded(TOKENIZER))
    join(parts, TOKENIZER, folder / "corpus", Origin("two files", TEXT, "0123"), CorpusConfig(**settings))
    return folder / "corpus"


def documents(corpus: Corpus) -> list[list[str]]:
    sentences = [
        " ".join(corpus.tokenizer.tokens(corpus.tokens[begin:end].tolist()))
        for begin, end in pairwise(corpus.sentence_offsets)
    ]
    return [sentences[begin:end] for begin, end in pairwise(corpus.document_offsets)]


@pytest.mark.parametrize("deduplicate", [False, True])
def test_documents_across_files(tmp_path: Path, deduplicate: bool):
    folder = joined(tmp_path, deduplicate=deduplicate)
    corpus, manifest = Corpus.open(folder), json.loads((folder / "manifest.json").read_text())
    expected = WITHOUT_REPEATS if deduplicate else DOCUMENTS
    unknown = [[each.replace("z", "[UNK]") for each in document] for document in expected]
    assert documents(corpus) == unknown
    words = [word for document in unknown for each in document for word in each.split()]
    assert corpus.token_counts.tolist() == [
        words.count(TOKENIZER.backend.id_to_token(id)) for id in range(TOKENIZER.vocab_size)
    ]
    sentences = sum(map(len, expected))
    assert (manifest["documents"], manifest["sentences"], manifest["tokens"]) == (len(expected), sentences, len(words))
    given = [each for stream in STREAMS for chunk in stream for each in chunk if each not in MARKS]
    assert manifest["characters"] == sum(len(each.replace(" ", "")) for each in given)
    assert manifest["unknown_characters"] == 1
    assert manifest["duplicates"] == {"sentences": 6, "documents": 1, "dropped": deduplicate}
    assert (manifest["fingerprint"], manifest["language"], manifest["text"]) == ("0123", "en", TEXT)


def test_nothing_but_the_corpus_is_left(tmp_path: Path):
    folder = joined(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"part 0", "part 1", "corpus"}
    assert {path.name for path in folder.iterdir()} == {
        *("manifest.json", "tokenizer.json", "tokens.bin", "sentence_offsets.bin", "document_offsets.bin"),
        "token_counts.bin",
    }


def test_what_a_killed_build_left_is_replaced(tmp_path: Path):
    (tmp_path / ".corpus.bertfast-partial").mkdir()
    (tmp_path / ".corpus.bertfast-partial" / "left").touch()
    assert not (joined(tmp_path) / "left").exists()
    assert not (tmp_path / ".corpus.bertfast-partial").exists()


def test_a_users_own_folder_stays(tmp_path: Path):
    (tmp_path / "corpus.partial").mkdir()
    (tmp_path / "corpus.partial" / "mine").touch()
    joined(tmp_path)
    assert (tmp_path / "corpus.partial" / "mine").exists()


@pytest.mark.parametrize(
    ("streams", "found"),
    [
        ([], "no text"),
        ([[]], "no text"),
        ([[[DOCUMENT, NOTHING, DOCUMENT]]], "no text"),
        ([[[A]]], "one sentence only"),
    ],
)
def test_too_few_sentences_leave_nothing(tmp_path: Path, streams: list[list[list[str]]], found: str):
    with pytest.raises(InputError, match=f"^{found} in two files: give more"):
        joined(tmp_path, streams)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith("part ")]


def test_a_build_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(path: Path) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("bertfast.data.building.join.digest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        joined(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"part 0", "part 1"}


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("deduplicate", [False, True])
def test_a_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deduplicate: bool, elsewhere: bool):
    """NFS keeps a file that is removed while it is mapped, under another name, until it is no longer mapped."""
    maps: list[weakref.ref[Any]] = []
    unlink = Path.unlink

    def mapped(hashes: Path) -> Any:
        found = repeats(hashes)
        maps.append(weakref.ref(found))
        return found

    def unlink_on_nfs(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".repeats" and (elsewhere or any(each() is not None for each in maps)):
            path.rename(path.with_name(f".nfs{path.stem}"))
        else:
            unlink(path, missing_ok)

    monkeypatch.setattr("bertfast.data.building.join.repeats", mapped)
    monkeypatch.setattr(Path, "unlink", unlink_on_nfs)
    folder = joined(tmp_path, deduplicate=deduplicate)
    left = list(folder.glob(".nfs*"))
    assert len(left) == (2 if elsewhere else 0)
    for path in left:
        unlink(path)
    assert len(documents(Corpus.open(folder))) == (4 if deduplicate else 6)
