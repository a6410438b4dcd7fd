"""Finds repeated sentences and documents by 64-bit hashes, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# The number of hashes to sort in memory at a time.
_SORTED = 1 << 22
_RECORD = np.dtype([("hash", np.uint64), ("index", np.int64)])

Hashes = npt.NDArray[np.uint64]


def sentence_hashes(sentences: Sequence[str]) -> Hashes:
    """A hash for each sentence, equal for sentences that differ only in white space. Others collide only by chance."""
    digests = (hashlib.blake2b(" ".join(each.split()).encode(), digest_size=8).digest() for each in sentences)
    return np.frombuffer(b"".join(digests), np.uint64)


class DocumentHashes:
    """Computes documents' hashes from their sentences' hashes and positions, a chunk at a time."""

    def __init__(self) -> None:
        self._sum = np.uint64(0)  # of the document that has not ended yet
        self._count = 0

    def after(self, hashes: Hashes, ends: npt.NDArray[np.integer[Any]]) -> Hashes:
        """The hashes of the documents that end within these sentences; document i ends after `ends[i]` of them.

        An empty document has no hash.
        """
        bounds = np.concatenate([[0], ends, [len(hashes)]])
        counts = np.diff(bounds)
        places = np.arange(len(hashes)) - np.repeat(bounds[:-1], counts)
        places[: counts[0]] += self._count
        sums = np.concatenate([[np.uint64(0)], _mixed(hashes + _mixed(places.astype(np.uint64))).cumsum()])
        found = np.diff(sums[bounds])
        found[:1] += self._sum  # as an array, whose sums may overflow
        counts[0] += self._count
        self._sum, self._count = found[-1], int(counts[-1])
        ended: Hashes = found[:-1][counts[:-1] > 0]
        return ended


def repeats(hashes: Path) -> npt.NDArray[np.bool_]:
    """For each hash in a file, whether it repeats an earlier one: (hashes,), memory-mapped."""
    count = hashes.stat().st_size // 8
    if not count:
        return np.zeros(0, np.bool_)
    shares = -(-count // _SORTED)
    shared = [hashes.with_suffix(f".{share}") for share in range(shares)]
    for path in shared:
        path.unlink(missing_ok=True)
    with hashes.open("rb") as file:
        for begin in range(0, count, _SORTED):
            block = np.frombuffer(file.read(8 * _SORTED), np.uint64)
            records = np.empty(len(block), _RECORD)
            records["hash"], records["index"] = block, np.arange(begin, begin + len(block))
            for share, path in enumerate(shared):
                with path.open("ab") as out:
                    out.write(records[block % np.uint64(shares) == share].tobytes())
    found = np.memmap(hashes.with_suffix(".repeats"), np.bool_, "w+", shape=(count,))
    for path in shared:
        records = np.fromfile(path, _RECORD)
        records = records[np.argsort(records["hash"], kind="stable")]
        found[records["index"][1:][records["hash"][1:] == records["hash"][:-1]]] = True
        path.unlink()
    return found


def _mixed(numbers: Hashes) -> Hashes:
    """splitmix64's finalizer: a bijection whose results look random."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
