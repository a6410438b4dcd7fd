// Many Philox draws at a time.
//
// A 64-bit lane carries one 32-bit word in its low half; its upper half may hold anything, because the
// widening multiplication reads low halves alone. So a round is two products, two shifts and two three-way
// xors.
#pragma once

#include "core/math/philox.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace bertfast::cpu::BERTFAST_ISA {

#if defined(__AVX512F__)
constexpr int LANES = 8;
#elif defined(__AVX2__)
constexpr int LANES = 4;
#else
constexpr int LANES = 2;
#endif
typedef uint64_t Lanes __attribute__((vector_size(8 * LANES)));
typedef uint32_t HalfLanes __attribute__((vector_size(4 * LANES)));

static inline Lanes multiply_low_halves(Lanes a, Lanes b) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (Lanes)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (Lanes)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF);
#endif
}

struct PhiloxLanes {
    Lanes word[4];

    Philox operator[](int lane) const {
        return {{static_cast<uint32_t>(word[0][lane]), static_cast<uint32_t>(word[1][lane]),
                 static_cast<uint32_t>(word[2][lane]), static_cast<uint32_t>(word[3][lane])}};
    }
    // Stores the lanes' words, LANES of each.
    void store(uint32_t* word0, uint32_t* word1, uint32_t* word2, uint32_t* word3) const {
        uint32_t* const to[4] = {word0, word1, word2, word3};
        for (int i = 0; i < 4; ++i) {
            const HalfLanes halves = __builtin_convertvector(word[i], HalfLanes);
            __builtin_memcpy(to[i], &halves, sizeof halves);
        }
    }
};

// `draw` (core/math/philox.h) in every lane, each with an index and a slot of its own.
static inline PhiloxLanes draw_lanes(uint64_t seed, Stream stream, uint32_t place, Lanes index, Lanes slot) {
    const Lanes zero = {}, multiplier0 = zero + 0xD2511F53, multiplier1 = zero + 0xCD9E8D57;
    Lanes c0 = index, c1 = index >> 32, c2 = slot, c3 = zero + (stream | place << 8);
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
        const Lanes p0 = multiply_low_halves(c0, multiplier0), p1 = multiply_low_halves(c2, multiplier1);
        c0 = (p1 >> 32) ^ c1 ^ (zero + k0);
        c1 = p1;
        c2 = (p0 >> 32) ^ c3 ^ (zero + k1);
        c3 = p0;
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
    return {{c0, c1, c2, c3}};
}

}  // namespace bertfast::cpu::BERTFAST_ISA
