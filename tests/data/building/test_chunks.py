"""Chunks of tokenised sentences against a plain reading of the stream, and their files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bertfast.config import CorpusConfig
from bertfast.data.building.chunks import Chunk, chunks, write_chunk
from bertfast.data.sentences import DOCUMENT, MARKS, PARAGRAPH, PART
from bertfast.data.tokenizer import SPECIAL_TOKENS, Tokenizer, train_wordpiece

SENTENCES = ["it rains.", "it  rains.", "a zebra!", "\u200b", "[MASK] it [CLS]", "xyzzy 漢 it"]
TOKENIZER = train_wordpiece(["it rains. a zebra!"], CorpusConfig("wordpiece", min_freq=1))

streams = st.lists(st.sampled_from([*SENTENCES, DOCUMENT, PART, PARAGRAPH]), max_size=12)


def ids_of(sentence: str, tokenizer: Tokenizer = TOKENIZER) -> list[int]:
    """A special token's name in a text is an unknown word."""
    ids = tokenizer.backend.encode(sentence, add_special_tokens=False).ids
    return [tokenizer.special_ids.unk if id in tokenizer.special_ids else id for id in ids]


@given(streams)
@example([])
@example([DOCUMENT, DOCUMENT])
@example(["\u200b", DOCUMENT, "\u200b"])
def test_a_chunk_is_the_stream(stream: list[str]):
    chunk = Chunk.of(stream, TOKENIZER)
    kept = [each for each in stream if each not in MARKS and ids_of(each)]
    assert chunk.tokens.tolist() == [id for each in kept for id in ids_of(each)]
    assert chunk.lengths.tolist() == [len(ids_of(each)) for each in kept]
    for mark, places in ((DOCUMENT, chunk.ends), (PART, chunk.parts), (PARAGRAPH, chunk.paragraphs)):
        assert places.tolist() == [
            sum(before not in MARKS and bool(ids_of(before)) for before in stream[:i])
            for i, each in enumerate(stream)
            if each == mark
        ]
    spelled = [" ".join(each.split()).encode() for each in kept]
    digests = [hashlib.blake2b(each, digest_size=8).digest() for each in spelled]
    assert chunk.hashes.tolist() == [int.from_bytes(each, "little") for each in digests]
    assert (chunk.tokens.dtype, chunk.lengths.dtype, chunk.hashes.dtype) == (np.uint16, np.int64, np.uint64)


def test_characters_without_spaces_and_those_of_unknown_words():
    """Of every sentence, also of one without tokens. A special token's name counts as written."""
    assert Chunk.of(["it  rains.", DOCUMENT, "\u200b", "xyzzy 漢 it"], TOKENIZER).characters.tolist() == [8 + 1 + 8, 6]
    assert Chunk.of([], TOKENIZER).characters.tolist() == [0, 0]


def test_no_special_token_but_unk_is_stored():
    found = Chunk.of([" ".join(SPECIAL_TOKENS)], TOKENIZER)
    assert found.tokens.tolist() == [TOKENIZER.special_ids.unk] * 5


@pytest.mark.parametrize("words", [3, 1 << 16])
def test_what_is_written_is_read(tmp_path: Path, words: int):
    """Several chunks a file, and empty ones, in the order of the files; ids of two bytes, and of four."""
    vocabulary = [*SPECIAL_TOKENS, *(f"w{i}" for i in range(words))]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    tokenizer = Tokenizer.load(tmp_path / "vocab.txt")
    streams = [["w0 w1.", DOCUMENT, f"w{words - 1}", PART], [], [DOCUMENT], ["w2", PARAGRAPH, "w0"]]
    written = [Chunk.of(each, tokenizer) for each in streams]
    parts = [tmp_path / "0", tmp_path / "1", tmp_path / "2"]
    for part, its in zip(parts, (written[:2], [], written[2:]), strict=True):
        with part.open("wb") as file:
            for chunk in its:
                write_chunk(file, chunk)
    read = list(chunks(parts, tokenizer))
    assert len(read) == len(written)
    for found, expected in zip(read, written, strict=True):
        assert [each.dtype for each in found] == [each.dtype for each in expected]
        assert [each.tolist() for each in found] == [each.tolist() for each in expected]
    assert found.tokens.dtype == (np.uint16 if words == 3 else np.uint32)
