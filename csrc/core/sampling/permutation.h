// The order of an epoch: a permutation of [0, count) without a table, keyed by (seed, epoch).
//
// A Feistel network permutes the numbers of b bits, whatever its round function. Following its cycle until a number
// below `count` comes up restricts it to [0, count). As 2^b is below 2 * count (except for the smallest counts), fewer
// than two steps are expected.
#pragma once

#include "core/math/philox.h"

namespace bertfast {

constexpr uint32_t FEISTEL_ROUNDS = 8;

// Bits of the Feistel state for `count` numbers: at least 2, one for each half.
BERTFAST_HD int feistel_bits(uint64_t count) {
    int bits = 2;
    while (bits < 64 && (count - 1) >> bits) ++bits;
    return bits;
}

BERTFAST_HD uint64_t permute(uint64_t seed, uint64_t epoch, uint64_t i, uint64_t count) {
    const int bits = feistel_bits(count), left_bits = bits / 2, right_bits = bits - left_bits;
    const uint64_t left_mask = (uint64_t{1} << left_bits) - 1, right_mask = (uint64_t{1} << right_bits) - 1;
    do {
        uint64_t left = i >> right_bits, right = i & right_mask;
        for (uint32_t round = 0; round < FEISTEL_ROUNDS; ++round) {
            const uint32_t word = draw(seed, STREAM_SHUFFLE, round, epoch, static_cast<uint32_t>(right)).word[0];
            const uint64_t mixed = left ^ (word & (round % 2 ? right_mask : left_mask));
            left = right;
            right = mixed;
        }
        i = left << right_bits | right;
    } while (i >= count);
    return i;
}

}  // namespace bertfast
