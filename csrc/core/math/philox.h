// Philox4x32, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
//
// Every random decision in bertfast is one call of it: the counter says which decision is meant, the key is the seed,
// and there is no state. The counter's last word holds the stream, so that no two purposes ever share a draw.
#pragma once

#include "core/host_device.h"

namespace bertfast {

struct Philox {
    uint32_t word[4];
};

// Of as many rounds as its authors found to pass every test of TestU01's BigCrush (seven), or with their margin (ten).
template <int ROUNDS>
BERTFAST_HD Philox philox4x32(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
    for (int round = 0; round < ROUNDS; ++round) {
        const uint64_t p0 = uint64_t{0xD2511F53} * c0;
        const uint64_t p1 = uint64_t{0xCD9E8D57} * c2;
        c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<uint32_t>(p1);
        c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<uint32_t>(p0);
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
    return {{c0, c1, c2, c3}};
}

// What a draw is for: the low byte of the counter's last word. The upper 24 bits number a place within the purpose.
enum Stream : uint32_t { STREAM_SHUFFLE = 0, STREAM_PAIR = 1, STREAM_MASK = 2, STREAM_DROPOUT = 3 };

// The four words for decision `slot` about item `index` (an example, an epoch, a token of the run).
template <int ROUNDS = 10>
BERTFAST_HD Philox draw(uint64_t seed, Stream stream, uint32_t place, uint64_t index, uint32_t slot) {
    return philox4x32<ROUNDS>(static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), slot,
                              stream | place << 8, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

// Two words as one 64-bit number.
BERTFAST_HD uint64_t word64(const Philox& draw, int first) {
    return draw.word[first] | static_cast<uint64_t>(draw.word[first + 1]) << 32;
}

// High 64 bits of the 128-bit product.
BERTFAST_HD uint64_t multiply_high(uint64_t a, uint64_t b) {
#if defined(__CUDA_ARCH__)
    return __umul64hi(a, b);
#else
    return static_cast<uint64_t>((static_cast<unsigned __int128>(a) * b) >> 64);
#endif
}

// A number in [0, n) from 64 random bits: the high half of the product. No loop; bias below n / 2^64.
BERTFAST_HD uint64_t bounded(uint64_t random, uint64_t n) {
    return multiply_high(random, n);
}

}  // namespace bertfast
