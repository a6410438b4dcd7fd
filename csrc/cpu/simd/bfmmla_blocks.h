// Products of bfloat16 matrices by NEON's BFMMLA, which adds four terms to each of four sums, those of two rows and two
// columns.
#pragma once

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)

#include "cpu/simd/bf16_dot_pairs.h"

namespace bertfast::cpu::BERTFAST_ISA {

constexpr int64_t SIDE = 8;  // rows and columns of a block, whose sums take 16 registers

// The first four numbers of two rows.
static inline bfloat16x8_t two_rows(const bfloat16* first, const bfloat16* second) {
    return vreinterpretq_bf16_u16(vcombine_u16(vld1_u16(&first->bits), vld1_u16(&second->bits)));
}

// c (SIDE, SIDE) = or += a b.
static inline void bfmmla_block(int64_t depth, const bfloat16* a, int64_t a_stride, const float* b, int64_t b_stride,
                                float* c, int64_t c_stride, bool add) {
    float32x4_t sums[SIDE / 2][SIDE / 2] = {};
    for (int64_t k = 0; k < depth; k += 4, a += 4, b += 2 * b_stride) {
        bfloat16x8_t columns[SIDE / 2];
#pragma GCC unroll 2
        for (int j = 0; j < SIDE; j += 4) {
            const Floats first = load(b + j), second = load(b + b_stride + j);  // terms k and k + 1, k + 2 and k + 3
            columns[j / 2] = vreinterpretq_bf16_f32((float32x4_t)shuffled<0, 4, 1, 5>(first, second));
            columns[j / 2 + 1] = vreinterpretq_bf16_f32((float32x4_t)shuffled<2, 6, 3, 7>(first, second));
        }
#pragma GCC unroll 4
        for (int i = 0; i < SIDE / 2; ++i) {
            const bfloat16x8_t rows = two_rows(a + 2 * i * a_stride, a + (2 * i + 1) * a_stride);
#pragma GCC unroll 4
            for (int j = 0; j < SIDE / 2; ++j) sums[i][j] = vbfmmlaq_f32(sums[i][j], rows, columns[j]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < SIDE / 2; ++i) {
#pragma GCC unroll 2
        for (int j = 0; j < SIDE / 2; j += 2) {
            const Floats left = (Floats)sums[i][j], right = (Floats)sums[i][j + 1];
            const Floats of_rows[] = {shuffled<0, 1, 4, 5>(left, right), shuffled<2, 3, 6, 7>(left, right)};
            for (int row = 0; row < 2; ++row) {
                float* const to = c + (2 * i + row) * c_stride + 2 * j;
                store(to, add ? load(to) + of_rows[row] : of_rows[row]);
            }
        }
    }
}

// Like AVX512_BF16's `VectorProducts`, but rows too are computed in whole blocks.
class BlockProducts : public ByRows<BlockProducts, SIDE> {
  public:
    static constexpr int64_t DEPTH = 2 * LANES;  // whole vectors of pairs: `pack_transposed` writes no others

    void operator()(int64_t rows, int64_t columns, int64_t depth, const bfloat16* a, int64_t a_stride, const float* b,
                    int64_t b_stride, float* c, int64_t c_stride, bool add) const {
        for (int64_t row = 0; row < rows; row += SIDE) {
            for (int64_t column = 0; column < columns; column += SIDE) {
                bfmmla_block(depth, a + row * a_stride, a_stride, b + column, b_stride, c + row * c_stride + column,
                             c_stride, add);
            }
        }
    }
};

}  // namespace bertfast::cpu::BERTFAST_ISA

#endif
