// Products of 64 x 64 tiles in shared memory by a block of 256 threads, each of which holds 16 elements of the result:
// float32 by multiplication and addition, bfloat16 by tensor cores (mma.sync m16n8k16) with float32 sums.
//
// An operand is a tile of the left or the right factor's rows: left[i][k] and right[j][k] give sum_k left[i][k]
// right[j][k] at (i, j). An operand that is stored as [k][i] is called transposed.
#pragma once

#include "cuda/tile/tile.cuh"

namespace bertfast::cuda {

// In bfloat16 a warp computes 16 x 32 elements of a result, 16 x 8 by an instruction. Of these a lane holds two
// neighbours in each of two rows. Two instructions, whose right rows alternate by twos, give it four neighbours.
struct Lane {
    int row, column;  // where the warp's part begins
    int group, in_group;

    BERTFAST_HD_MEMBER constexpr explicit Lane(int thread)
        : row(thread / 32 % 4 * 16), column(thread / 128 * 32), group(thread % 32 / 4), in_group(thread % 4) {}
};

// The place of a thread's element in the result. Elements 4 q ... 4 q + 3 are neighbours in one row, from a column that
// is a multiple of 4. With a transposed right factor only 2 q and 2 q + 1 are neighbours.
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

// The row of eight elements whose address a lane gives to ldmatrix, in the left factor's 16 x 16 from k on...
BERTFAST_HD constexpr Place left_address(int thread, int k, bool transposed) {
    const int matrix = thread % 32 / 8, row = thread % 8;
    const int first = Lane(thread).row + matrix % 2 * 8, second = k + matrix / 2 * 8;
    return transposed ? Place{second + row, first} : Place{first + row, second};
}

// ...and in the right factor's 16 rows for this pair of results.
BERTFAST_HD constexpr Place right_address(int thread, int k, int pair, bool transposed) {
    const int matrix = thread % 32 / 8, row = thread % 8, which = matrix / 2;
    const int first = Lane(thread).column + 16 * pair, second = k + matrix % 2 * 8;
    return transposed ? Place{second + row, first + 8 * which}
                      : Place{first + row / 2 * 4 + row % 2 + 2 * which, second};
}

// Which of a pair's eight elements register `number` of product 0 or 1 is.
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
// Loads four 8 x 8 matrices, each from the rows of eight lanes. A lane gets two neighbours of each (in a column, if
// transposed).
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

// Adds the products of each of LEFTS left tiles with each of RIGHTS right tiles to the thread's elements: those of left
// i and right j are at sum + (i RIGHTS + j) TILE_ELEMENTS. A factor's tiles are `*_stride` apart in an array that
// begins with the given one. Several tiles at once take fewer loads, since a left tile is read once for all right tiles
// and vice versa. All threads of a block call this together.
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
