// Philox4x32, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
//
// Every random decision in bertfast is one call to it: the counter names the decision, the key is the seed, and there
// is no state. The counter's last word holds the stream, so that no two purposes ever share a draw.
#pragma once

#include "core/host_device.h"

namespace bertfast {

// The word type of a single draw. LaneWords (cpu/simd/philox_lanes.h) is that of many draws at a time.
struct ScalarWords {
    using Word = uint32_t;

    BERTFAST_HD_MEMBER static Word all(uint32_t value) { return value; }
    // The whole product; `high` and `low` give its halves.
    BERTFAST_HD_MEMBER static uint64_t product(Word a, uint32_t b) { return uint64_t{b} * a; }
    BERTFAST_HD_MEMBER static Word high(uint64_t product) { return static_cast<Word>(product >> 32); }
    BERTFAST_HD_MEMBER static Word low(uint64_t product) { return static_cast<Word>(product); }
};

template <typename Words>
struct PhiloxWords {
    typename Words::Word word[4];
};

using Philox = PhiloxWords<ScalarWords>;

// Seven rounds are the fewest that pass every test of TestU01's BigCrush; the authors recommend ten, for a margin.
template <int ROUNDS, typename Words = ScalarWords, typename Word = typename Words::Word>
BERTFAST_HD PhiloxWords<Words> philox4x32(Word c0, Word c1, Word c2, Word c3, uint32_t k0, uint32_t k1) {
    for (int round = 0; round < ROUNDS; ++round) {
        const auto p0 = Words::product(c0, 0xD2511F53), p1 = Words::product(c2, 0xCD9E8D57);
        c0 = Words::high(p1) ^ c1 ^ Words::all(k0);
        c1 = Words::low(p1);
        c2 = Words::high(p0) ^ c3 ^ Words::all(k1);
        c3 = Words::low(p0);
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
    return {{c0, c1, c2, c3}};
}

// What a draw is for: the low byte of the counter's last word. The upper 24 bits are a place within that purpose.
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

// The high 64 bits of the 128-bit product.
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
