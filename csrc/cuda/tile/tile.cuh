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
// `whole`: columns and stride consist of pieces, aligned to 16 bytes. A whole bfloat16 tile is complete after the
// barrier that follows the thread's next block.wait(thread).
template <typename T, typename Block>
BERTFAST_HD void load_tile(Block& block, const T* from, int64_t stride, int rows, int columns, bool whole, int thread,
                           Tile<T>& tile) {
    constexpr int SIZE = Piece<T>::SIZE, PIECES = TILE / SIZE, TURNS = TILE * PIECES / TILE_THREADS;
    const int column = thread % PIECES * SIZE;
    const auto row = [&](int turn) { return (thread + turn * TILE_THREADS) / PIECES; };
    const auto is_there = [&](int turn) { return row(turn) < rows && column < columns; };
    const auto to = [&](int turn) { return tile.data + Tile<T>::index(row(turn), column); };
    if constexpr (sizeof(T) == 2) {
        if (whole) {
            BERTFAST_UNROLL
            for (int turn = 0; turn < TURNS; ++turn) {
                block.copy(thread, is_there(turn),
                           reinterpret_cast<const Piece<T>*>(from + row(turn) * stride + column),
                           reinterpret_cast<Piece<T>*>(to(turn)));
            }
            return;
        }
    }
    Piece<T> pieces[TURNS] = {};
    BERTFAST_UNROLL
    for (int turn = 0; turn < TURNS; ++turn) {
        if (!is_there(turn)) continue;
        const T* const at = from + row(turn) * stride + column;
        if (whole) {
            pieces[turn] = *reinterpret_cast<const Piece<T>*>(at);
        } else {
            for (int i = 0; i < SIZE && column + i < columns; ++i) pieces[turn].element[i] = at[i];
        }
    }
    BERTFAST_UNROLL
    for (int turn = 0; turn < TURNS; ++turn) {
        for (int i = 0; i < SIZE; ++i) to(turn)[i] = pieces[turn].element[i];
    }
}

struct Place {
    int row, column;
};

}  // namespace bertfast::cuda
