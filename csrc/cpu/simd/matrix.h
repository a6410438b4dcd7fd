// Small float32 matrices that stay in cache: their products, and copies from and to tensors of either type.
//
// A row of a matrix takes `row_stride(columns)` floats: an odd number of whole cache lines, so that a column doesn't
// fall on a few sets of the cache. Columns beyond the matrix's are zero up to a whole vector; the rest is never read.
#pragma once

#include <type_traits>
#include <utility>

#include "cpu/simd/scratch.h"
#include "cpu/simd/vector.h"

namespace bertfast::cpu::BERTFAST_ISA {

static inline int64_t row_stride(int64_t columns) {
    return (round_up(columns, LINE) / LINE | 1) * LINE;
}

// A product's elements are float32.
struct FloatTerms {
    static Floats spread(const float* element) { return broadcast(*element); }
    static Floats add(Floats sum, Floats left, Floats right) { return sum + left * right; }
};

// A product's tile in registers: ROWS x VECTORS sums, VECTORS vectors of b and one of a. For NEON the compiler keeps
// the elements of a in ROWS registers: 29 of 32 are taken, where 6 rows would be too many.
#if defined(__AVX512F__)
constexpr int TILE_ROWS = 6, TILE_VECTORS = 4;
#elif defined(__aarch64__)
constexpr int TILE_ROWS = 5, TILE_VECTORS = 4;
#else
constexpr int TILE_ROWS = 6, TILE_VECTORS = 2;
#endif

// to (ROWS, VECTORS * LANES) = a b, plus `from` unless it is null; element (r, k) of a is a[r * a_row + k * a_depth].
template <typename Terms, int ROWS, int VECTORS, typename From, typename To>
static inline void product_tile(int64_t depth, const float* a, int64_t a_row, int64_t a_depth, const float* b,
                                int64_t b_stride, const From* from, int64_t from_stride, To* to, int64_t to_stride) {
    Floats sums[ROWS][VECTORS] = {};
    for (int64_t k = 0; k < depth; ++k) {
        Floats right[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) right[v] = load(b + k * b_stride + v * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            const Floats left = Terms::spread(a + r * a_row + k * a_depth);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) sums[r][v] = Terms::add(sums[r][v], left, right[v]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) {
            const Floats sum = sums[r][v];
            store(to + r * to_stride + v * LANES, from ? load(from + r * from_stride + v * LANES) + sum : sum);
        }
    }
}

template <typename Terms, int VECTORS, typename From, typename To>
static void product_panel(int64_t rows, int64_t depth, const float* a, int64_t a_row, int64_t a_depth, const float* b,
                          int64_t b_stride, const From* from, int64_t from_stride, To* to, int64_t to_stride) {
    int64_t row = 0;
#define BERTFAST_TILE(ROWS)                                                                                          \
    product_tile<Terms, ROWS, VECTORS>(depth, a + row * a_row, a_row, a_depth, b, b_stride,                          \
                                       from ? from + row * from_stride : nullptr, from_stride, to + row * to_stride, \
                                       to_stride)
    for (; row + TILE_ROWS <= rows; row += TILE_ROWS) BERTFAST_TILE(TILE_ROWS);
    switch (rows - row) {
        case 1:
            return BERTFAST_TILE(1);
        case 2:
            return BERTFAST_TILE(2);
        case 3:
            return BERTFAST_TILE(3);
        case 4:
            return BERTFAST_TILE(4);
        case 5:
            return BERTFAST_TILE(5);
    }
#undef BERTFAST_TILE
}

// to (rows, columns) = a b, plus `from` unless it is null, which may be `to`; a is (rows, depth) with the strides a_row
// and a_depth, so that a transposed matrix is one with its strides swapped. Columns are computed in whole vectors.
template <typename Terms, typename From, typename To>
static inline void product_plus(int64_t rows, int64_t columns, int64_t depth, const float* a, int64_t a_row,
                                int64_t a_depth, const float* b, int64_t b_stride, const From* from,
                                int64_t from_stride, To* to, int64_t to_stride) {
    const auto panel = [&](auto vectors, int64_t column) {
        product_panel<Terms, decltype(vectors)::value>(rows, depth, a, a_row, a_depth, b + column, b_stride,
                                                       from ? from + column : nullptr, from_stride, to + column,
                                                       to_stride);
    };
    for (int64_t column = 0; column < columns; column += TILE_VECTORS * LANES) {
        switch ((columns - column + LANES - 1) / LANES) {
            case 1:
                panel(std::integral_constant<int, 1>(), column);
                break;
#if defined(__AVX512F__) || defined(__aarch64__)
            case 2:
                panel(std::integral_constant<int, 2>(), column);
                break;
            case 3:
                panel(std::integral_constant<int, 3>(), column);
                break;
#endif
            default:
                panel(std::integral_constant<int, TILE_VECTORS>(), column);
        }
    }
}

// The same, with c = or += a b.
template <typename Terms = FloatTerms>
static inline void product(int64_t rows, int64_t columns, int64_t depth, const float* a, int64_t a_row, int64_t a_depth,
                           const float* b, int64_t b_stride, float* c, int64_t c_stride, bool add) {
    const float* const from = add ? c : nullptr;
    product_plus<Terms>(rows, columns, depth, a, a_row, a_depth, b, b_stride, from, c_stride, c, c_stride);
}

// Tensors are read one sequence and head at a time, a pattern that no hardware prefetcher recognises. So the copies
// prefetch the rows after the current ones: the next sequence's.

// to (rows, columns) = from, whose rows are from_stride elements apart, plus bias, which is a row of whole cache lines,
// or null.
template <typename T>
static inline void pack(const T* from, int64_t from_stride, int64_t rows, int64_t columns, const float* bias, float* to,
                        int64_t to_stride) {
    for (int64_t row = 0; row < rows; ++row, from += from_stride, to += to_stride) {
        int64_t c = 0;
        for (; c + LANES <= columns; c += LANES) {
            __builtin_prefetch(from + rows * from_stride + c);
            store(to + c, bias ? load(from + c) + load(bias + c) : load(from + c));
        }
        if (c < columns) store(to + c, load(from + c, columns - c, 0.0f) + (bias ? load(bias + c) : Floats{}));
    }
}

// to (rows, columns) = factor(row) * from. `unpack` has one factor for all rows.
template <typename T, typename Factor>
static inline void unpack_rows(const float* from, int64_t from_stride, int64_t rows, int64_t columns,
                               const Factor& factor, T* to, int64_t to_stride) {
    for (int64_t row = 0; row < rows; ++row, from += from_stride, to += to_stride) {
        const float of_row = factor(row);
        int64_t c = 0;
        for (; c + LANES <= columns; c += LANES) {
            __builtin_prefetch(to + rows * to_stride + c, 1);
            store(to + c, load(from + c) * of_row);
        }
        if (c < columns) store(to + c, load(from + c) * of_row, columns - c);
    }
}

template <typename T>
static inline void unpack(const float* from, int64_t from_stride, int64_t rows, int64_t columns, float factor, T* to,
                          int64_t to_stride) {
    unpack_rows(from, from_stride, rows, columns, [=](int64_t) { return factor; }, to, to_stride);
}

// For two rows a and b, HALF apart, swaps the lanes of a whose number has the bit HALF with those of b without it.
template <int HALF, int... LANE>
static inline void swap_lanes(Floats& a, Floats& b, std::integer_sequence<int, LANE...>) {
    constexpr int ALL = sizeof...(LANE);
    const Floats upper = a, lower = b;
    a = shuffled<(LANE & HALF ? LANE - HALF + ALL : LANE)...>(upper, lower);
    b = shuffled<(LANE & HALF ? LANE + ALL : LANE + HALF)...>(upper, lower);
}

// Swaps the two off-diagonal blocks of half the size, and so on down to single lanes.
template <int HALF = LANES / 2>
static inline void transpose_lanes(Floats (&rows)[LANES]) {
#pragma GCC unroll 16
    for (int64_t row = 0; row < LANES; ++row) {
        if ((row & HALF) == 0) {
            swap_lanes<HALF>(rows[row], rows[row + HALF], std::make_integer_sequence<int, LANES>());
        }
    }
    if constexpr (HALF > 1) transpose_lanes<HALF / 2>(rows);
}

// to (columns, rows) = from (rows, columns) transposed, plus bias, which is a row of whole cache lines, or
// null.
template <typename T>
static inline void pack_transposed(const T* from, int64_t from_stride, int64_t rows, int64_t columns, const float* bias,
                                   float* to, int64_t to_stride) {
    for (int64_t row = 0; row < rows; row += LANES) {
        for (int64_t column = 0; column < columns; column += LANES) {
            const int64_t count = columns - column < LANES ? columns - column : LANES;
            Floats block[LANES];
#pragma GCC unroll 16
            for (int64_t r = 0; r < LANES; ++r) {
                const T* const line = from + (row + r) * from_stride + column;
                if (row + r >= rows) {
                    block[r] = Floats{};
                } else {
                    __builtin_prefetch(line + rows * from_stride);
                    block[r] = count == LANES ? load(line) : load(line, count, 0.0f);
                    if (bias) block[r] += load(bias + column);
                }
            }
            transpose_lanes(block);
#pragma GCC unroll 16
            for (int64_t c = 0; c < LANES; ++c) {
                if (c < count) store(to + (column + c) * to_stride + row, block[c]);
            }
        }
    }
}

}  // namespace bertfast::cpu::BERTFAST_ISA
