"""Finds repeated sentences and documents by 64-bit hashes, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# Hashes sorted in memory at a time.
_SORTED = 1 << 22
_RECORD = np.dtype([("hash", np.uint64), ("index", np.int64)])

Hashes = npt.NDArray[np.uint64]


def sentence_hashes(sentences: Sequence[str]) -> Hashes:
    """The sentences' hashes. They are equal if only white space differs; other sentences collide only by chance."""
    digests = (hashlib.blake2b(" ".join(sentence.split()).encode(), digest_size=8).digest() for sentence in sentences)
    return np.frombuffer(b"".join(digests), np.uint64)


class DocumentHashes:
    """Computes documents' hashes from their sentences' hashes and positions, a chunk at a time."""

    def __init__(self) -> None:
        # Of the document that has not ended yet.
        self._sum = np.uint64(0)
        self._count = 0

    def after(self, hashes: Hashes, ends: npt.NDArray[np.integer[Any]]) -> Hashes:
        """The hashes of the documents that end within these sentences; document i ends after `ends[i]` of them.

        An empty document has no hash.
        """
        bounds = np.concatenate([[0], ends, [len(hashes)]])
        counts = np.diff(bounds)
        positions = np.arange(len(hashes)) - np.repeat(bounds[:-1], counts)
        positions[: counts[0]] += self._count
        sums = np.concatenate([[np.uint64(0)], _mixed(hashes + _mixed(positions.astype(np.uint64))).cumsum()])
        documents = np.diff(sums[bounds])
        documents[:1] += self._sum  # an array, since numpy warns when a scalar overflows
        counts[0] += self._count
        self._sum, self._count = documents[-1], int(counts[-1])
        ended: Hashes = documents[:-1][counts[:-1] > 0]
        return ended


def repeats(hashes: Path) -> npt.NDArray[np.bool_]:
    """For each hash in a file, whether it repeats an earlier one: (hashes,), memory-mapped.

    The hashes are distributed over files, equal ones to the same file, and each file is sorted in memory.
    """
    count = hashes.stat().st_size // 8
    if not count:
        return np.zeros(0, np.bool_)
    parts = [hashes.with_suffix(f".{part}") for part in range(-(-count // _SORTED))]
    with hashes.open("rb") as file:
        for begin in range(0, count, _SORTED):
            block = np.frombuffer(file.read(8 * _SORTED), np.uint64)
            records = np.empty(len(block), _RECORD)
            records["hash"], records["index"] = block, np.arange(begin, begin + len(block))
            for part, path in enumerate(parts):
                with path.open("ab") as out:
                    out.write(records[block % np.uint64(len(parts)) == part].tobytes())
    repeated = np.memmap(hashes.with_suffix(".repeats"), np.bool_, "w+", shape=(count,))
    for path in parts:
        records = np.fromfile(path, _RECORD)
        records = records[np.argsort(records["hash"], kind="stable")]
        repeated[records["index"][1:][records["hash"][1:] == records["hash"][:-1]]] = True
        path.unlink()
    return repeated


def _mixed(numbers: Hashes) -> Hashes:
    """splitmix64's finalizer: a bijection whose results look random."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
