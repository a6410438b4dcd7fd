"""Sentences in a build's intermediate files: in chunks, so that no file has to fit in memory.

A chunk's text is first split into pieces, each distinct one of which has a number. A tokenizer then needs to tokenise
each of them only once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from bertfast.data.corpus import token_dtype
from bertfast.data.deduplication import Hashes, sentence_hashes
from bertfast.data.sentences import DOCUMENT, MARKS, PARAGRAPH, PART
from bertfast.data.tokenizing.tokenizer import Tokenizer


class Chunk(NamedTuple):
    """Consecutive sentences, without those that have no tokens."""

    tokens: npt.NDArray[Any]
    """(tokens,), as in a corpus; within a `Split`, numbers of pieces: uint32."""
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


class Split(NamedTuple):
    """Consecutive sentences, split into pieces of text."""

    pieces: list[str]
    """The distinct pieces; the marks between the sentences are among them."""
    chunk: Chunk
    """The sentences, of numbers of pieces."""

    @classmethod
    def of(cls, stream: Sequence[str], at_spaces: bool) -> Split:
        """`stream`: sentences and marks, as data/sentences.py yields them.

        Pieces are what lies between spaces, or whole sentences unless `at_spaces`.
        """
        numbers: defaultdict[str, int] = defaultdict(count().__next__)
        pieces = [each.split(" ") if at_spaces else [each] for each in stream]
        lengths = np.array([len(each) for each in pieces], np.int64)
        tokens = np.array([*map(numbers.__getitem__, chain.from_iterable(pieces))], np.uint32)
        sentences = [each for each in stream if each not in MARKS]
        is_sentence = np.array([each not in MARKS for each in stream], np.bool_)
        before = is_sentence.cumsum()
        marks = np.array(stream, object)
        ends, parts, paragraphs = (before[marks == mark] for mark in (DOCUMENT, PART, PARAGRAPH))
        chunk = Chunk(
            tokens[np.repeat(is_sentence, lengths)],
            lengths[is_sentence],
            sentence_hashes(sentences),
            ends,
            parts,
            paragraphs,
            np.array([sum(len(each) - each.count(" ") for each in sentences), 0]),
        )
        return cls(list(numbers), chunk)

    def counts(self) -> dict[str, int]:
        """How often each piece occurs in the sentences."""
        return dict(zip(self.pieces, np.bincount(self.chunk.tokens, minlength=len(self.pieces)).tolist(), strict=True))

    def encoded(self, tokenizer: Tokenizer) -> Chunk:
        """The sentences, of tokens."""
        encoded = tokenizer.encode_pieces(self.pieces)
        sizes = np.array([len(each.ids) for each in encoded], np.int64)
        unknown = np.array([each.unknown_characters for each in encoded], np.int64)
        # A special token's name in a text must not become that token, or it would be a false boundary or mask.
        stored = np.arange(tokenizer.vocab_size, dtype=token_dtype(tokenizer))
        stored[list(tokenizer.special_ids)] = tokenizer.special_ids.unk
        ids = stored[np.fromiter(chain.from_iterable(each.ids for each in encoded), np.int64, sizes.sum())]

        numbers, lengths, hashes, ends, parts, paragraphs, (characters, _) = self.chunk
        # A piece's tokens are copied from where they are among `ids` to their places in the text.
        counts = sizes[numbers]
        shifts = (sizes.cumsum() - sizes)[numbers] - (counts.cumsum() - counts)
        tokens = ids[np.arange(counts.sum()) + np.repeat(shifts, counts)]
        lengths = np.add.reduceat(counts, lengths.cumsum() - lengths)  # no sentence is without pieces
        kept = lengths > 0
        before = np.concatenate([[0], kept.cumsum()])
        return Chunk(
            tokens,
            lengths[kept],
            hashes[kept],
            before[ends],
            before[parts],
            before[paragraphs],
            np.array([characters, unknown[numbers].sum()]),
        )


def write_chunk(file: BinaryIO, chunk: Chunk) -> None:
    file.write(np.array([len(array) for array in chunk], np.int64).tobytes())
    for array in chunk:
        file.write(array.tobytes())


def chunks(parts: Sequence[Path], tokenizer: Tokenizer) -> Iterator[Chunk]:
    """The chunks in the files, in order."""
    for part in parts:
        with part.open("rb") as file:
            while chunk := _read_chunk(file, token_dtype(tokenizer)):
                yield chunk


def write_split(file: BinaryIO, split: Split) -> None:
    write_chunk(file, split.chunk)
    text = " ".join(split.pieces).encode()
    file.write(np.int64(len(text)).tobytes())
    file.write(text)


def read_splits(file: BinaryIO) -> Iterator[Split]:
    """What `write_split` wrote."""
    while chunk := _read_chunk(file, np.dtype(np.uint32)):
        [size] = np.fromfile(file, np.int64, 1)
        yield Split(file.read(size).decode().split(" "), chunk)


def _read_chunk(file: BinaryIO, dtype: np.dtype[Any]) -> Chunk | None:
    sizes = np.fromfile(file, np.int64, len(Chunk._fields)).tolist()
    dtypes = [dtype, np.dtype(np.int64), np.dtype(np.uint64), *[np.dtype(np.int64)] * 4]
    return Chunk(*(np.fromfile(file, *each) for each in zip(dtypes, sizes, strict=True))) if sizes else None
