// Many Philox draws at a time.
//
// A 64-bit lane carries one 32-bit word in its low half. Its upper half may hold anything, because the widening
// multiplication reads low halves alone. So a round is two products, two shifts and two three-way xors.
#pragma once

#include "core/math/philox.h"
#include "cpu/simd/vector.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace bertfast::cpu::BERTFAST_ISA {

struct LaneWords {
    using Word = Longs;

    static Word all(uint32_t value) { return Longs{} + value; }
    static Longs product(Word a, uint32_t b) {
#if defined(__AVX512F__)
        return (Longs)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, (__m512i)all(b));
#elif defined(__AVX2__)
        return (Longs)_mm256_mul_epu32((__m256i)a, (__m256i)all(b));
#elif defined(__SSE2__)
        return (Longs)_mm_mul_epu32((__m128i)a, (__m128i)all(b));
#elif defined(__aarch64__)
        return (Longs)vmull_u32(vmovn_u64((uint64x2_t)a), vdup_n_u32(b));
#else
        return (a & 0xFFFFFFFF) * all(b);
#endif
    }
    static Word high(Longs product) { return product >> 32; }
    static Word low(Longs product) { return product; }
};

using PhiloxLanes = PhiloxWords<LaneWords>;

// `draw` (core/math/philox.h) in every lane, each with its own index and slot.
template <int ROUNDS = 10>
static inline PhiloxLanes draw_lanes(uint64_t seed, Stream stream, uint32_t place, Longs index, Longs slot) {
    return philox4x32<ROUNDS, LaneWords>(index, index >> 32, slot, LaneWords::all(stream | place << 8),
                                         static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

static inline Philox one_lane(const PhiloxLanes& drawn, int lane) {
    return {{static_cast<uint32_t>(drawn.word[0][lane]), static_cast<uint32_t>(drawn.word[1][lane]),
             static_cast<uint32_t>(drawn.word[2][lane]), static_cast<uint32_t>(drawn.word[3][lane])}};
}

// Stores word i of all lanes at to + i * stride.
static inline void store_words(const PhiloxLanes& drawn, uint32_t* to, int64_t stride) {
    typedef uint32_t Packed __attribute__((vector_size(2 * LANES)));
    for (int i = 0; i < 4; ++i) {
        const Packed packed = __builtin_convertvector(drawn.word[i], Packed);
        memcpy(to + i * stride, &packed, sizeof packed);
    }
}

}  // namespace bertfast::cpu::BERTFAST_ISA
