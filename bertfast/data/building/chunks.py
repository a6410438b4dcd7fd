"""Tokenised sentences as the parts of a build hold them: in chunks, so that no part need fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from bertfast.data.corpus import token_dtype
from bertfast.data.deduplication import Hashes, sentence_hashes
from bertfast.data.tokenizer import Tokenizer


class Chunk(NamedTuple):
    """Consecutive sentences, without those that have no token."""

    tokens: npt.NDArray[Any]
    """(tokens,), as a corpus has them."""
    lengths: npt.NDArray[np.int64]
    """(sentences,): their tokens."""
    hashes: Hashes
    """(sentences,): equal for duplicates."""
    ends: npt.NDArray[np.int64]
    """(documents,): for each document that ends in the chunk, how many sentences come before its end. Equal numbers
    stand for empty documents."""

    @classmethod
    def of(cls, sentences: Sequence[str], tokenizer: Tokenizer) -> Chunk:
        """`sentences`: an empty string ends a document."""
        ids = tokenizer.encode_sentences(sentences)
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        # A special token's name in a text is not that token: it would be a boundary or a mask where there is none.
        stored = np.arange(tokenizer.vocab_size, dtype=token_dtype(tokenizer))
        stored[list(tokenizer.special_ids)] = tokenizer.special_ids.unk
        tokens = stored[np.fromiter(chain.from_iterable(ids), np.int64, lengths.sum())]
        kept = lengths > 0
        at_end = np.fromiter((sentence == "" for sentence in sentences), bool, len(sentences))
        return cls(tokens, lengths[kept], sentence_hashes(sentences)[kept], kept.cumsum()[at_end])


def write_chunk(file: BinaryIO, chunk: Chunk) -> None:
    file.write(np.array([len(array) for array in chunk], np.int64).tobytes())
    for array in chunk:
        file.write(array.tobytes())


def chunks(parts: Sequence[Path], tokenizer: Tokenizer) -> Iterator[Chunk]:
    """The chunks that the files hold."""
    dtypes = [token_dtype(tokenizer), np.dtype(np.int64), np.dtype(np.uint64), np.dtype(np.int64)]
    for part in parts:
        with part.open("rb") as file:
            while header := file.read(8 * len(dtypes)):
                sizes = np.frombuffer(header, np.int64).tolist()
                yield Chunk(*(np.fromfile(file, dtype, size) for dtype, size in zip(dtypes, sizes, strict=True)))
