"""Dropout's draws by the specification in docs/sampling.md, in Python's own integers."""

from __future__ import annotations

from support.reference import philox4x32

ROUNDS = 7


def half(seed: int, place: int, index: int, column: int) -> int:
    low = 0xFFFFFFFF
    counter = [index & low, index >> 32 & low, column // 8, 3 | place << 8]
    word = philox4x32(counter, [seed & low, seed >> 32 & low], ROUNDS)[column % 8 // 2]
    return word >> 16 if column % 2 else word & 0xFFFF
