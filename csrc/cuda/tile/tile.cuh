// Tiles of 64 x 64 elements in shared memory: their layout, and how a block of 256 threads loads them.
#pragma once

#include "core/math/bfloat16.h"

namespace bertfast::cuda {

constexpr int TILE = 64, TILE_THREADS = 256, TILE_ELEMENTS = TILE * TILE / TILE_THREADS;

template <typename T>
struct Tile;

template <>
struct Tile<float> {
    static constexpr int STRIDE = TILE + 1;  // odd, so that neither rows nor columns fall into one bank
    float data[TILE * STRIDE];
    BERTFAST_HD_MEMBER static constexpr int index(int row, int column) { return row * STRIDE + column; }
};

// A row is eight pieces of 16 bytes, permuted by the row's number, so that the eight pieces that ldmatrix reads at once
// are in different banks: those of eight neighbouring rows, and of the rows 0, 1, 4, 5, 8, 9, 12, 13 (see Lane).
template <>
struct Tile<bfloat16> {
    alignas(16) bfloat16 data[TILE * TILE];
    BERTFAST_HD_MEMBER static constexpr int swizzle(int row) { return (row & 7) ^ (row >> 3 & 1) << 1; }
    BERTFAST_HD_MEMBER static constexpr int index(int row, int column) {
        return row * TILE + ((column / 8) ^ swizzle(row)) * 8 + column % 8;
    }
};

template <typename T>
struct alignas(16) Piece {
    static constexpr int SIZE = 16 / sizeof(T);
    T element[SIZE];
};

// Loads a tile from `from`, whose rows are `stride` apart, with `rows` rows and `columns` columns and 0 beyond them.
// `whole`: columns and stride consist of pieces, aligned to 16 bytes.
template <typename T>
BERTFAST_HD void load_tile(const T* from, int64_t stride, int rows, int columns, bool whole, int thread,
                           Tile<T>& tile) {
    constexpr int SIZE = Piece<T>::SIZE, PIECES = TILE / SIZE;
    for (int number = thread; number < TILE * PIECES; number += TILE_THREADS) {
        const int row = number / PIECES, column = number % PIECES * SIZE;
        Piece<T> piece = {};
        if (row < rows && column < columns) {
            const T* const at = from + row * stride + column;
            if (whole) {
                piece = *reinterpret_cast<const Piece<T>*>(at);
            } else {
                for (int i = 0; i < SIZE && column + i < columns; ++i) piece.element[i] = at[i];
            }
        }
        T* const to = tile.data + Tile<T>::index(row, column);
        if constexpr (sizeof(T) == 2) {
            *reinterpret_cast<Piece<T>*>(to) = piece;
        } else {
            for (int i = 0; i < SIZE; ++i) to[i] = piece.element[i];
        }
    }
}

struct Place {
    int row, column;
};

}  // namespace bertfast::cuda
