// Dropout's draws, many at a time: for a stretch of one row, the factor (0 or 1 / (1 - p)) of every column.
//
// A 64-bit lane runs one Philox: its low half is the 32-bit word and its upper half may hold anything, since the
// widening multiply reads low halves alone. So a round is two multiplies, two shifts and two three-way xors.
#pragma once

#include "core/dropout.h"
#include "cpu/simd/scratch.h"
#include "cpu/simd/vector.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace bertfast::cpu::BERTFAST_ISA {

constexpr int64_t DRAW_LANES = LANES / 2;
typedef uint64_t DrawLanes __attribute__((vector_size(8 * DRAW_LANES)));

// Columns that one group of lanes decides about; `dropout_scales` fills whole groups.
constexpr int64_t DRAW_COLUMNS = 4 * LANES;

// The 64-bit product of the lanes' low halves.
static inline DrawLanes multiply_low(DrawLanes a, DrawLanes b) {
#if defined(__AVX512F__)
    return (DrawLanes)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (DrawLanes)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (DrawLanes)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF);
#endif
}

// a0 b0 a1 b1 ...: the first half of the lanes, and the second.
static inline void interleave(DrawLanes a, DrawLanes b, DrawLanes& first, DrawLanes& second) {
#if defined(__AVX512F__)
    first = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    second = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#elif defined(__AVX2__)
    first = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    second = __builtin_shufflevector(a, b, 2, 6, 3, 7);
#else
    first = __builtin_shufflevector(a, b, 0, 2);
    second = __builtin_shufflevector(a, b, 1, 3);
#endif
}

// The factors of the 2 LANES columns whose draws these are.
static inline void store_factors(float* to, DrawLanes draws, const Dropout& dropout) {
#if defined(__AVX512BW__)
    const __mmask32 kept = _mm512_cmple_epu16_mask((__m512i)draws, _mm512_set1_epi16(dropout.last_kept));
    const __m512 scale = _mm512_set1_ps(dropout.scale);
    store(to, (Floats)_mm512_maskz_mov_ps(static_cast<__mmask16>(kept), scale));
    store(to + LANES, (Floats)_mm512_maskz_mov_ps(static_cast<__mmask16>(kept >> 16), scale));
#else
    const Words scale = bits_as<Words>(broadcast(dropout.scale)), last_kept = Words{} + dropout.last_kept;
    Halves halves[2];
    memcpy(halves, &draws, sizeof halves);
    for (int h = 0; h < 2; ++h) {
        const Words kept = (Words)(__builtin_convertvector(halves[h], Words) <= last_kept);
        store(to + h * LANES, bits_as<Floats>(kept & scale));
    }
#endif
}

// scales[c] = factor of column first_column + c, for c in [0, columns rounded up to DRAW_COLUMNS): the buffer needs
// that room. first_column is a multiple of 8.
static inline void dropout_scales(const Dropout& dropout, uint64_t row_key, int64_t first_column, int64_t columns,
                                  float* scales) {
    constexpr uint64_t LOW = 0xFFFFFFFF;
    const DrawLanes zero = {};
    const DrawLanes multiplier0 = zero + 0xD2511F53, multiplier1 = zero + 0xCD9E8D57;
    DrawLanes slot;
    for (int lane = 0; lane < DRAW_LANES; ++lane) slot[lane] = static_cast<uint64_t>(first_column / 8 + lane);

    DrawLanes key0[DROPOUT_ROUNDS], key1[DROPOUT_ROUNDS];
    uint32_t k0 = static_cast<uint32_t>(dropout.seed), k1 = static_cast<uint32_t>(dropout.seed >> 32);
    for (int round = 0; round < DROPOUT_ROUNDS; ++round, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
        key0[round] = zero + k0;
        key1[round] = zero + k1;
    }
    for (int64_t column = 0; column < columns; column += DRAW_COLUMNS, slot += DRAW_LANES) {
        DrawLanes c0 = zero + (row_key & LOW), c1 = zero + (row_key >> 32), c2 = slot,
                  c3 = zero + (STREAM_DROPOUT | static_cast<uint64_t>(dropout.place) << 8);
#pragma GCC unroll 7
        for (int round = 0; round < DROPOUT_ROUNDS; ++round) {
            const DrawLanes p0 = multiply_low(c0, multiplier0), p1 = multiply_low(c2, multiplier1);
            c0 = (p1 >> 32) ^ c1 ^ key0[round];
            c1 = p1;
            c2 = (p0 >> 32) ^ c3 ^ key1[round];
            c3 = p0;
        }
        DrawLanes first, second;
        interleave((c0 & LOW) | c1 << 32, (c2 & LOW) | c3 << 32, first, second);
        store_factors(scales + column, first, dropout);
        store_factors(scales + column + 2 * LANES, second, dropout);
    }
}

// The factors of one row at a time, drawn into a thread's own room; all 1 where nothing is dropped.
class DropoutFactors {
  public:
    DropoutFactors(bool drops, const Dropout& rule, int64_t columns, Scratch& scratch)
        : drops_(drops), rule_(rule), columns_(columns), factors_(scratch.take(room_for(columns))) {
        for (int64_t c = 0; c < room_for(columns); ++c) factors_[c] = 1.0f;
    }

    static int64_t room_for(int64_t columns) { return round_up(columns, DRAW_COLUMNS > LINE ? DRAW_COLUMNS : LINE); }

    const float* of(int64_t row_key) {
        if (drops_) dropout_scales(rule_, static_cast<uint64_t>(row_key), 0, columns_, factors_);
        return factors_;
    }

    // From here on, `columns` (no more than there is room for) at `place`.
    void turn_to(int64_t columns, uint32_t place) {
        columns_ = columns;
        rule_.place = place;
    }

  private:
    bool drops_;
    Dropout rule_;
    int64_t columns_;
    float* factors_;
};

}  // namespace bertfast::cpu::BERTFAST_ISA
