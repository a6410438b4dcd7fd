// The layouts of bfloat16 matrices for products by the processor's own instructions, which multiply and add several
// terms of a sum at a time.
//
// The left factor keeps its layout, with rows of whole pairs. Row k of the right factor holds, for each column, the
// numbers 2k and 2k + 1 of its depth, side by side. A pair is stored as the bits of one float. Padding in the depth
// must be zero; padding elsewhere may be any number, and gives rows and columns that are never read.
#pragma once

#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define BERTFAST_HAS_BF16_PRODUCTS

#include "cpu/simd/matrix.h"
#include "cpu/simd/row_vectors.h"

namespace bertfast::cpu::BERTFAST_ISA {

constexpr int64_t PAIRED = 32;  // numbers in a cache line; the strides of these matrices are multiples of it

#if defined(__AVX512BF16__)
// A product's elements are pairs, two terms at a time.
struct PairTerms {
    static Floats spread(const float* pair) {
        int32_t bits;
        memcpy(&bits, pair, sizeof bits);
        return (Floats)_mm512_set1_epi32(bits);
    }
    static Floats add(Floats sum, Floats left, Floats right) {
        return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)left, (__m512bh)right);
    }
};

// Products by AVX512_BF16, in registers.
class VectorProducts {
  public:
    static constexpr int64_t DEPTH = 2;  // depths are multiples of it

    // c (rows, columns) = a b, or += if `add`: float32 sums of bfloat16 products. Columns are computed in whole
    // vectors. Strides count elements; those of b are pairs.
    void operator()(int64_t rows, int64_t columns, int64_t depth, const bfloat16* a, int64_t a_stride, const float* b,
                    int64_t b_stride, float* c, int64_t c_stride, bool add) const {
        product<PairTerms>(rows, columns, depth / 2, reinterpret_cast<const float*>(a), a_stride / 2, 1, b, b_stride, c,
                           c_stride, add);
    }

    // The same with the left factor transposed: `pairs` holds the paired rows of a (depth, rows) matrix. `workspace` is
    // working memory of the same size.
    void of_columns(int64_t rows, int64_t columns, int64_t depth, const float* pairs, int64_t pairs_stride,
                    float* /* workspace */, const float* b, int64_t b_stride, float* c, int64_t c_stride,
                    bool add) const {
        product<PairTerms>(rows, columns, depth / 2, pairs, 1, pairs_stride, b, b_stride, c, c_stride, add);
    }
};
#endif

// A base of products that compute BLOCK rows at a time: adds `of_columns` (see VectorProducts), which first transposes
// the left factor back into the working memory.
template <typename Products, int64_t BLOCK>
class ByRows {
  public:
    void of_columns(int64_t rows, int64_t columns, int64_t depth, const float* pairs, int64_t pairs_stride,
                    float* workspace, const float* b, int64_t b_stride, float* c, int64_t c_stride, bool add) const {
        pack_transposed(pairs, pairs_stride, depth / 2, round_up(rows, BLOCK), nullptr, workspace, depth / 2);
        static_cast<const Products&>(*this)(rows, columns, depth, reinterpret_cast<const bfloat16*>(workspace), depth,
                                            b, b_stride, c, c_stride, add);
    }
};

// to (to_rows, to_stride) = from (rows, columns) + bias, padded with zeros. `bias` is a row of whole cache lines, or
// null.
static inline void pad(const bfloat16* from, int64_t from_stride, int64_t rows, int64_t columns, const float* bias,
                       bfloat16* to, int64_t to_rows, int64_t to_stride) {
    for (int64_t row = 0; row < rows; ++row, from += from_stride, to += to_stride) {
        __builtin_prefetch(from + rows * from_stride);
        __builtin_prefetch(from + rows * from_stride + PAIRED);
        if (bias) {
            for (int64_t c = 0; c < columns; c += LANES) {
                store_upto(to + c, load_upto(from + c, columns - c) + load(bias + c), columns - c);
            }
        } else {
            memcpy(to, from, columns * sizeof(bfloat16));
        }
        memset(to + columns, 0, (to_stride - columns) * sizeof(bfloat16));
    }
    if (to_rows > rows) memset(to, 0, (to_rows - rows) * to_stride * sizeof(bfloat16));
}

// The lanes a0 b0 a1 b1 ..., beginning with the lane FIRST of both.
template <int FIRST, typename Row, int... LANE>
static inline Row interleave_from(Row a, Row b, std::integer_sequence<int, LANE...>) {
    constexpr int ALL = sizeof...(LANE);
    return shuffled<(FIRST + LANE / 2 + LANE % 2 * ALL)...>(a, b);
}

// 2 LANES numbers of a row.
typedef uint16_t PartOfRow __attribute__((vector_size(4 * LANES)));

static inline void store_pairs(PartOfRow even, PartOfRow odd, float* to) {
    constexpr std::make_integer_sequence<int, 2 * LANES> ALL;
    const PartOfRow first = interleave_from<0>(even, odd, ALL), second = interleave_from<LANES>(even, odd, ALL);
    memcpy(to, &first, sizeof first);
    memcpy(to + LANES, &second, sizeof second);
}

// Interleaves rows 2k and 2k + 1 of `from` (rows, stride) into row k of pairs. `rows` is even, `stride` a multiple of
// PAIRED.
static inline void pair_rows(const bfloat16* from, int64_t rows, int64_t stride, float* to) {
    for (int64_t row = 0; row < rows; row += 2, from += 2 * stride, to += stride) {
        for (int64_t c = 0; c < stride; c += 2 * LANES) {
            PartOfRow even, odd;
            memcpy(&even, from + c, sizeof even);
            memcpy(&odd, from + stride + c, sizeof odd);
            store_pairs(even, odd, to + c);
        }
    }
}

// Transposes `from` (rows, stride) by pairs: the pairs of row r become column r.
static inline void pair_columns(const bfloat16* from, int64_t rows, int64_t stride, float* to, int64_t to_stride) {
    pack_transposed(reinterpret_cast<const float*>(from), stride / 2, rows, stride / 2, nullptr, to, to_stride);
}

}  // namespace bertfast::cpu::BERTFAST_ISA

#endif
