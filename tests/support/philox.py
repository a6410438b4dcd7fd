"""Dropout's draws by the specification in docs/sampling.md, in Python's own integers."""

from __future__ import annotations


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-7 in Python's own integers."""
    low = 0xFFFFFFFF
    for _ in range(7):
        p, q = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [q >> 32 ^ counter[1] ^ key[0], q & low, p >> 32 ^ counter[3] ^ key[1], p & low]
        key = [key[0] + 0x9E3779B9 & low, key[1] + 0xBB67AE85 & low]
    return counter


def half(seed: int, place: int, index: int, column: int) -> int:
    low = 0xFFFFFFFF
    counter = [index & low, index >> 32 & low, column // 8, 3 | place << 8]
    word = philox(counter, [seed & low, seed >> 32 & low])[column % 8 // 2]
    return word >> 16 if column % 2 else word & 0xFFFF
