// Products of bfloat16 matrices in AMX's tiles. A tile of the left factor has 16 rows of 32 numbers, a tile of the
// right factor 16 rows of 16 pairs (bf16_dot_pairs.h).
#pragma once

#if defined(__AMX_BF16__)

#include "cpu/simd/bf16_dot_pairs.h"

namespace bertfast::cpu::BERTFAST_ISA {

constexpr int64_t TILE = 16;  // rows, and columns of pairs or float32

// A block of ROWS x COLUMNS tiles (one or two each) of c = or += a b. Tile numbers are constants in the instructions.
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
    for (int64_t k = 0; k < depth; k += PAIRED, a += PAIRED, b += TILE * b_stride) {
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

// Like `VectorProducts`, but rows too are computed in whole tiles. During an object's lifetime, all eight tiles of its
// thread have their maximum size.
class TileProducts : public ByRows<TileProducts, TILE> {
  public:
    static constexpr int64_t DEPTH = PAIRED;

    TileProducts() {
        struct alignas(64) {
            uint8_t palette = 1, start_row = 0, reserved[14] = {};
            uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } shape;
        static_assert(sizeof shape == 64);
        asm volatile("" : : "m"(shape));  // the intrinsic tells the compiler that it reads a pointer's size
        _tile_loadconfig(&shape);
    }
    ~TileProducts() { _tile_release(); }
    TileProducts(const TileProducts&) = delete;
    TileProducts& operator=(const TileProducts&) = delete;

    void operator()(int64_t rows, int64_t columns, int64_t depth, const bfloat16* a, int64_t a_stride, const float* b,
                    int64_t b_stride, float* c, int64_t c_stride, bool add) const {
        // The intrinsics don't tell the compiler that they read memory.
        asm volatile("" ::: "memory");
        for (int64_t row = 0; row < rows; row += 2 * TILE) {
            const bfloat16* const left = a + row * a_stride;
            for (int64_t column = 0; column < columns; column += 2 * TILE) {
                const float* const right = b + column;
                float* const to = c + row * c_stride + column;
                if (row + TILE < rows) {
                    column + TILE < columns
                        ? tile_block<2, 2>(depth, left, a_stride, right, b_stride, to, c_stride, add)
                        : tile_block<2, 1>(depth, left, a_stride, right, b_stride, to, c_stride, add);
                } else {
                    column + TILE < columns
                        ? tile_block<1, 2>(depth, left, a_stride, right, b_stride, to, c_stride, add)
                        : tile_block<1, 1>(depth, left, a_stride, right, b_stride, to, c_stride, add);
                }
            }
        }
    }
};

}  // namespace bertfast::cpu::BERTFAST_ISA

#endif
