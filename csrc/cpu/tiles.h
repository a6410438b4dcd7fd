// Small products of bfloat16 matrices in AMX's tiles, and the layouts that these take.
//
// A tile of the left factor has 16 rows of 32 numbers. A tile of the right one has 16 rows of 16 pairs: row k holds,
// for each column, the numbers 2k and 2k + 1 of its depth. A pair travels as one float, whose value nobody looks at.
// Matrices are padded to whole tiles; what is padded in the depth must be zero, what is padded elsewhere is any number
// and gives rows and columns that nobody reads.
#pragma once

#if defined(__AMX_BF16__)

#include <immintrin.h>

#include "cpu/matrix.h"
#include "cpu/rows.h"

namespace bertfast::cpu::BERTFAST_ISA {

constexpr int64_t TILE = 16;        // rows, and columns of pairs or float32
constexpr int64_t TILE_DEPTH = 32;  // numbers in a row

// While it lives, this thread's eight tiles are of the greatest size.
class Tiles {
  public:
    Tiles() {
        struct alignas(64) {
            uint8_t palette = 1, start_row = 0, reserved[14] = {};
            uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } shape;
        static_assert(sizeof shape == 64);
        _tile_loadconfig(&shape);
    }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

// A block of ROWS x COLUMNS tiles (one or two each) of c = or += a b. The tiles' numbers are part of the instructions.
template <int ROWS, int COLUMNS>
static inline void tile_block(int64_t depth, const bfloat16* a, int64_t a_stride, const float* b, int64_t b_stride,
                              float* c, int64_t c_stride, bool add) {
    constexpr bool LOWER = ROWS == 2, RIGHT = COLUMNS == 2;
    const int64_t a_bytes = a_stride * 2, b_bytes = b_stride * 4, c_bytes = c_stride * 4;
    float* const below = c + TILE * c_stride;
    if (add) {
        _tile_loadd(0, c, c_bytes);
        if constexpr (RIGHT) _tile_loadd(1, c + TILE, c_bytes);
        if constexpr (LOWER) _tile_loadd(2, below, c_bytes);
        if constexpr (LOWER && RIGHT) _tile_loadd(3, below + TILE, c_bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t k = 0; k < depth; k += TILE_DEPTH, a += TILE_DEPTH, b += TILE * b_stride) {
        _tile_loadd(4, a, a_bytes);
        _tile_loadd(6, b, b_bytes);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (RIGHT) {
            _tile_loadd(7, b + TILE, b_bytes);
            _tile_dpbf16ps(1, 4, 7);
        }
        if constexpr (LOWER) {
            _tile_loadd(5, a + TILE * a_stride, a_bytes);
            _tile_dpbf16ps(2, 5, 6);
        }
        if constexpr (LOWER && RIGHT) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, c_bytes);
    if constexpr (RIGHT) _tile_stored(1, c + TILE, c_bytes);
    if constexpr (LOWER) _tile_stored(2, below, c_bytes);
    if constexpr (LOWER && RIGHT) _tile_stored(3, below + TILE, c_bytes);
}

// c (rows, columns) = a b, or += if `add`: float32 sums of bfloat16 products. Rows and columns are done in whole tiles;
// `depth` is a multiple of TILE_DEPTH. Strides count elements: of b, pairs.
static inline void product(int64_t rows, int64_t columns, int64_t depth, const bfloat16* a, int64_t a_stride,
                           const float* b, int64_t b_stride, float* c, int64_t c_stride, bool add) {
    // The intrinsics don't tell the compiler that they read memory.
    asm volatile("" ::: "memory");
    for (int64_t row = 0; row < rows; row += 2 * TILE) {
        const bfloat16* const left = a + row * a_stride;
        for (int64_t column = 0; column < columns; column += 2 * TILE) {
            const float* const right = b + column;
            float* const to = c + row * c_stride + column;
            if (row + TILE < rows) {
                column + TILE < columns ? tile_block<2, 2>(depth, left, a_stride, right, b_stride, to, c_stride, add)
                                        : tile_block<2, 1>(depth, left, a_stride, right, b_stride, to, c_stride, add);
            } else {
                column + TILE < columns ? tile_block<1, 2>(depth, left, a_stride, right, b_stride, to, c_stride, add)
                                        : tile_block<1, 1>(depth, left, a_stride, right, b_stride, to, c_stride, add);
            }
        }
    }
}

// to (to_rows, to_stride) = from (rows, columns) + bias, and zeros. `bias` is a row of whole lines, or null.
static inline void pad(const bfloat16* from, int64_t from_stride, int64_t rows, int64_t columns, const float* bias,
                       bfloat16* to, int64_t to_rows, int64_t to_stride) {
    for (int64_t row = 0; row < rows; ++row, from += from_stride, to += to_stride) {
        __builtin_prefetch(from + rows * from_stride);
        __builtin_prefetch(from + rows * from_stride + TILE_DEPTH);
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

// Rows 2k and 2k + 1 of `from` (rows, stride) become row k of pairs. `rows` is even, `stride` a multiple of TILE_DEPTH.
static inline void pair_rows(const bfloat16* from, int64_t rows, int64_t stride, float* to) {
    typedef uint16_t Row __attribute__((vector_size(64)));
    for (int64_t row = 0; row < rows; row += 2, from += 2 * stride, to += stride) {
        for (int64_t c = 0; c < stride; c += TILE_DEPTH) {
            Row even, odd;
            memcpy(&even, from + c, sizeof even);
            memcpy(&odd, from + stride + c, sizeof odd);
            const Row first = __builtin_shufflevector(even, odd, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39,
                                                      8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47);
            const Row second =
                __builtin_shufflevector(even, odd, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55, 24,
                                        56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63);
            memcpy(to + c, &first, sizeof first);
            memcpy(to + c + TILE, &second, sizeof second);
        }
    }
}

// Pairs of numbers within the rows of `from` (rows, stride), transposed: those of row r become column r.
static inline void pair_columns(const bfloat16* from, int64_t rows, int64_t stride, float* to, int64_t to_stride) {
    pack_transposed(reinterpret_cast<const float*>(from), stride / 2, rows, stride / 2, nullptr, to, to_stride);
}

}  // namespace bertfast::cpu::BERTFAST_ISA

#endif
