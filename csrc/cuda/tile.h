// Products of 64 x 64 tiles in shared memory by a block of 256 threads, each of which holds 16 elements of the result:
// float32 by multiplication and addition, bfloat16 by tensor cores (mma.sync m16n8k16) with float32 sums.
//
// An operand is a tile of the left or the right factor's rows: left[i][k] and right[j][k] give sum_k left[i][k]
// right[j][k] at (i, j). One that lies the other way, [k][i], is called transposed.
#pragma once

#include "core/bfloat16.h"

namespace bertfast::cuda {

constexpr int TILE = 64, TILE_THREADS = 256, TILE_ELEMENTS = TILE * TILE / TILE_THREADS;

template <typename T>
struct Tile;

template <>
struct Tile<float> {
    static constexpr int STRIDE = TILE + 1;  // neither rows nor columns fall into one bank
    float data[TILE * STRIDE];
    BERTFAST_HD_MEMBER static constexpr int index(int row, int column) { return row * STRIDE + column; }
};

// Rows of eight pieces of 16 bytes, each row's in an order of its own, so that eight pieces that ldmatrix reads at once
// lie in different banks: those of eight neighbouring rows, and of the eight rows 0, 1, 4, 5, 8, 9, 12, 13 (see Lane).
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

// A tile from `from`, whose rows are `stride` apart: of `rows` rows and `columns` columns, and 0 beyond them. `whole`:
// both are made of pieces at multiples of 16 bytes.
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

// A warp makes 16 x 32 of a result in bfloat16, by 16 x 8 at a time. Of these, a lane holds two neighbours in each of
// two rows; two of them at once, whose right rows are dealt out by twos, give it four neighbours.
struct Lane {
    int row, column;  // of the warp's part
    int group, in_group;

    BERTFAST_HD_MEMBER constexpr explicit Lane(int thread)
        : row(thread / 32 % 4 * 16), column(thread / 128 * 32), group(thread % 32 / 4), in_group(thread % 4) {}
};

// Where in the result a thread's element stands. Elements 4 q ... 4 q + 3 are neighbours in one row, from a column on
// that is a multiple of 4, unless the right factor is transposed: then 2 q and 2 q + 1 are neighbours.
template <typename T>
BERTFAST_HD constexpr Place place(int thread, int element, bool right_transposed) {
    if constexpr (sizeof(T) == 2) {
        const Lane lane(thread);
        const int pair = element / 8, lower = element / 4 % 2, which = element / 2 % 2;
        const int column = right_transposed ? 8 * which + 2 * lane.in_group : 4 * lane.in_group + 2 * which;
        return {lane.row + lane.group + 8 * lower, lane.column + 16 * pair + column + element % 2};
    } else {
        return {thread / 16 * 4 + element / 4, thread % 16 * 4 + element % 4};
    }
}

// Where a lane finds the row of eight elements that it gives to ldmatrix, of the left factor's 16 x 16 from k on...
BERTFAST_HD constexpr Place left_address(int thread, int k, bool transposed) {
    const int matrix = thread % 32 / 8, row = thread % 8;
    const int first = Lane(thread).row + matrix % 2 * 8, second = k + matrix / 2 * 8;
    return transposed ? Place{second + row, first} : Place{first + row, second};
}

// ...and of the right factor's 16 rows of this pair of results.
BERTFAST_HD constexpr Place right_address(int thread, int k, int pair, bool transposed) {
    const int matrix = thread % 32 / 8, row = thread % 8, which = matrix / 2;
    const int first = Lane(thread).column + 16 * pair, second = k + matrix % 2 * 8;
    return transposed ? Place{second + row, first + 8 * which}
                      : Place{first + row / 2 * 4 + row % 2 + 2 * which, second};
}

// Which of the pair's eight elements each of its two products sums in its four registers.
BERTFAST_HD constexpr int mma_element(int product, int number) {
    return number / 2 * 4 + product * 2 + number % 2;
}

// Before sm_80 no tensor core takes bfloat16, and no run asks for it (bertfast/distributed/world.py).
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
__device__ inline void load_matrices(const bfloat16*, bool, uint32_t (&)[4]) {
    __trap();
}

__device__ inline void add_product(const uint32_t (&)[4], uint32_t, uint32_t, float&, float&, float&, float&) {
    __trap();
}
#elif defined(__CUDA_ARCH__)
// Four 8 x 8 matrices, one for each eight lanes' rows; a lane gets two neighbours of each (of a column, if transposed).
__device__ inline void load_matrices(const bfloat16* row, bool transposed, uint32_t (&to)[4]) {
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    if (transposed) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(address)
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(address)
                     : "memory");
    }
}

__device__ inline void add_product(const uint32_t (&left)[4], uint32_t right0, uint32_t right1, float& c0, float& c1,
                                   float& c2, float& c3) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, "
        "%3};"
        : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right0), "r"(right1));
}
#endif

// Adds the products of each of LEFTS tiles with each of RIGHTS to the thread's elements: those of left i and right j at
// sum + (i RIGHTS + j) TILE_ELEMENTS. A factor's tiles are those `*_stride` apart in an array, from the given one on.
// Several at once take fewer loads: a left one is read once for all rights and the other way round. All threads of a
// block call it together.
template <bool LEFT_TRANSPOSED, bool RIGHT_TRANSPOSED, int LEFTS = 1, int RIGHTS = 1, typename T>
BERTFAST_HD void multiply(const Tile<T>& left, const Tile<T>& right, int thread,
                          float (&sum)[LEFTS * RIGHTS * TILE_ELEMENTS], int left_stride = 1, int right_stride = 1) {
#if defined(__CUDA_ARCH__)
    if constexpr (sizeof(T) == 2) {
#pragma unroll
        for (int k = 0; k < TILE; k += 16) {
            uint32_t a[LEFTS][4], b[4];
            const Place from = left_address(thread, k, LEFT_TRANSPOSED);
#pragma unroll
            for (int i = 0; i < LEFTS; ++i) {
                const Tile<T>& tile = (&left)[i * left_stride];
                load_matrices(tile.data + Tile<T>::index(from.row, from.column), LEFT_TRANSPOSED, a[i]);
            }
#pragma unroll
            for (int j = 0; j < RIGHTS; ++j) {
                const Tile<T>& tile = (&right)[j * right_stride];
#pragma unroll
                for (int pair = 0; pair < 2; ++pair) {
                    const Place at = right_address(thread, k, pair, RIGHT_TRANSPOSED);
                    load_matrices(tile.data + Tile<T>::index(at.row, at.column), RIGHT_TRANSPOSED, b);
#pragma unroll
                    for (int i = 0; i < LEFTS; ++i) {
                        float* const c = sum + (i * RIGHTS + j) * TILE_ELEMENTS + 8 * pair;
#pragma unroll
                        for (int half = 0; half < 2; ++half) {
                            add_product(a[i], b[2 * half], b[2 * half + 1], c[mma_element(half, 0)],
                                        c[mma_element(half, 1)], c[mma_element(half, 2)], c[mma_element(half, 3)]);
                        }
                    }
                }
            }
        }
    } else
#pragma unroll 2
#endif
        for (int k = 0; k < TILE; ++k) {
            for (int number = 0; number < LEFTS * RIGHTS * TILE_ELEMENTS; ++number) {
                const int tile = number / TILE_ELEMENTS;
                const Place at = place<T>(thread, number % TILE_ELEMENTS, RIGHT_TRANSPOSED);
                const int i = LEFT_TRANSPOSED ? Tile<T>::index(k, at.row) : Tile<T>::index(at.row, k);
                const int j = RIGHT_TRANSPOSED ? Tile<T>::index(k, at.column) : Tile<T>::index(at.column, k);
                sum[number] += to_float((&left)[tile / RIGHTS * left_stride].data[i]) *
                               to_float((&right)[tile % RIGHTS * right_stride].data[j]);
            }
        }
}

}  // namespace bertfast::cuda
