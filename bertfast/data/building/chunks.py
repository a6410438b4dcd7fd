"""Tokenised sentences in a build's intermediate files: in chunks, so that no file has to fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from bertfast.data.corpus import token_dtype
from bertfast.data.deduplication import Hashes, sentence_hashes
from bertfast.data.sentences import DOCUMENT, MARKS, PARAGRAPH, PART
from bertfast.data.tokenizer import Tokenizer


class Chunk(NamedTuple):
    """Consecutive sentences, without those that have no tokens."""

    tokens: npt.NDArray[Any]
    """(tokens,), as in a corpus."""
    lengths: npt.NDArray[np.int64]
    """(sentences,): the number of tokens of each."""
    hashes: Hashes
    """(sentences,): equal for duplicates."""
    ends: npt.NDArray[np.int64]
    """(documents,): for each document that ends in the chunk, the number of the chunk's sentences before its end.
    Repeated numbers are empty documents."""
    parts: npt.NDArray[np.int64]
    """(parts,): the same for places where a document ends unless it is too short."""
    paragraphs: npt.NDArray[np.int64]
    """(paragraphs,): the same for places where a document ends if it is long enough."""
    characters: npt.NDArray[np.int64]
    """(2,): the number of characters in the text, without spaces, and in its unknown words."""

    @classmethod
    def of(cls, stream: Sequence[str], tokenizer: Tokenizer) -> Chunk:
        """`stream`: sentences and marks, as data/sentences.py yields them."""
        sentences = [each for each in stream if each not in MARKS]
        ids = tokenizer.encode_sentences(sentences)
        unknown = tokenizer.unknown_characters(sentences, ids)
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        # A special token's name in a text must not become that token, or it would be a false boundary or mask.
        stored = np.arange(tokenizer.vocab_size, dtype=token_dtype(tokenizer))
        stored[list(tokenizer.special_ids)] = tokenizer.special_ids.unk
        tokens = stored[np.fromiter(chain.from_iterable(ids), np.int64, lengths.sum())]
        kept = lengths > 0
        marks = np.array(stream, object)
        before = np.zeros(len(stream), np.int64)
        before[[each not in MARKS for each in stream]] = kept
        before = before.cumsum()
        ends, parts, paragraphs = (before[marks == mark] for mark in (DOCUMENT, PART, PARAGRAPH))
        return cls(
            tokens,
            lengths[kept],
            sentence_hashes(sentences)[kept],
            ends,
            parts,
            paragraphs,
            np.array([sum(len(each) - each.count(" ") for each in sentences), unknown]),
        )


def write_chunk(file: BinaryIO, chunk: Chunk) -> None:
    file.write(np.array([len(array) for array in chunk], np.int64).tobytes())
    for array in chunk:
        file.write(array.tobytes())


def chunks(parts: Sequence[Path], tokenizer: Tokenizer) -> Iterator[Chunk]:
    """The chunks in the files, in order."""
    dtypes = [token_dtype(tokenizer), np.dtype(np.int64), np.dtype(np.uint64), *[np.dtype(np.int64)] * 4]
    for part in parts:
        with part.open("rb") as file:
            while header := file.read(8 * len(dtypes)):
                sizes = np.frombuffer(header, np.int64).tolist()
                yield Chunk(*(np.fromfile(file, dtype, size) for dtype, size in zip(dtypes, sizes, strict=True)))
