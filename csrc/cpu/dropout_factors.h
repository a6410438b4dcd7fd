// Dropout's draws, many at a time: the factor, 0 or 1 / (1 - p), of each column in part of a row.
#pragma once

#include "core/dropout.h"
#include "cpu/simd/philox_lanes.h"
#include "cpu/simd/scratch.h"
#include "cpu/simd/vector.h"

namespace bertfast::cpu::BERTFAST_ISA {

// Columns per vector of draws. `dropout_factors` fills whole groups of this size.
constexpr int64_t DRAW_COLUMNS = 4 * LANES;

// The lanes a0 b0 a1 b1 ..., in two halves.
static inline void interleave(Longs a, Longs b, Longs& first, Longs& second) {
#if defined(__AVX512F__)
    first = shuffled<0, 8, 1, 9, 2, 10, 3, 11>(a, b);
    second = shuffled<4, 12, 5, 13, 6, 14, 7, 15>(a, b);
#elif defined(__AVX2__)
    first = shuffled<0, 4, 1, 5>(a, b);
    second = shuffled<2, 6, 3, 7>(a, b);
#else
    first = shuffled<0, 2>(a, b);
    second = shuffled<1, 3>(a, b);
#endif
}

// Stores the factors of 2 LANES columns from their draws.
static inline void store_factors(float* to, Longs draws, const Dropout& dropout) {
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
        const Words kept = (Words)(widened(halves[h]) <= last_kept);
        store(to + h * LANES, bits_as<Floats>(kept & scale));
    }
#endif
}

// factors[c] = factor of column first_column + c, for c in [0, columns rounded up to DRAW_COLUMNS): the buffer needs
// that room. first_column is a multiple of 8.
static inline void dropout_factors(const Dropout& dropout, uint64_t row_key, int64_t first_column, int64_t columns,
                                   float* factors) {
    constexpr uint64_t LOW = 0xFFFFFFFF;
    Longs slot;
    for (int lane = 0; lane < LONG_LANES; ++lane) slot[lane] = static_cast<uint64_t>(first_column / 8 + lane);
    for (int64_t column = 0; column < columns; column += DRAW_COLUMNS, slot += LONG_LANES) {
        const PhiloxLanes drawn =
            draw_lanes<DROPOUT_ROUNDS>(dropout.seed, STREAM_DROPOUT, dropout.place, Longs{} + row_key, slot);
        Longs first, second;
        interleave((drawn.word[0] & LOW) | drawn.word[1] << 32, (drawn.word[2] & LOW) | drawn.word[3] << 32, first,
                   second);
        store_factors(factors + column, first, dropout);
        store_factors(factors + column + 2 * LANES, second, dropout);
    }
}

// The factors of a row, or of a few rows, in a thread's scratch memory; all 1 without dropout.
class DropoutFactors {
  public:
    DropoutFactors(const Dropout& dropout, int64_t columns, Scratch& scratch, int64_t rows = 1)
        : dropout_(dropout), columns_(columns), stride_(room_for(columns)), factors_(scratch.take(rows * stride_)) {
        for (int64_t i = 0; i < rows * stride_; ++i) factors_[i] = 1.0f;
    }

    static int64_t room_for(int64_t columns) { return round_up(columns, DRAW_COLUMNS); }

    // From one row of the result to the next.
    int64_t stride() const { return stride_; }

    // Of the rows with these keys.
    const float* of(const int64_t* row_keys, int64_t rows) {
        if (!dropout_.enabled) return factors_;
        for (int64_t r = 0; r < rows; ++r) {
            dropout_factors(dropout_, static_cast<uint64_t>(row_keys[r]), 0, columns_, factors_ + r * stride_);
        }
        return factors_;
    }

    const float* of(int64_t row_key) { return of(&row_key, 1); }

    // Rows from here on have `columns` columns (no more than there is room for) and draw at `place`.
    void select(int64_t columns, uint32_t place) {
        columns_ = columns;
        dropout_.place = place;
    }

  private:
    Dropout dropout_;
    int64_t columns_, stride_;
    float* factors_;
};

}  // namespace bertfast::cpu::BERTFAST_ISA
