// Products of 64 x 64 tiles by a warpgroup of 128 threads on Hopper's tensor cores (wgmma m64nNk16 in bfloat16), which
// read both factors from shared memory by descriptors. For left, right and transposed factors see mma.cuh.
#pragma once

#include "cuda/tile/tile.cuh"

// Only sm_90a has them.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define BERTFAST_WGMMA
#endif

namespace bertfast::cuda {

// The layout of a descriptor's 128-byte swizzle: a row's pieces of 16 bytes are permuted by the row's place in its
// group of eight, which begins at a multiple of 1024 bytes.
struct alignas(1024) SwizzledTile {
    bfloat16 data[TILE * TILE];
    BERTFAST_HD_MEMBER static constexpr int index(int row, int column) {
        return row * TILE + ((column / 8) ^ (row & 7)) * 8 + column % 8;
    }
};

constexpr int ROW_BYTES = TILE * 2, GROUP_BYTES = 8 * ROW_BYTES;

// Describes 16 steps of the sum, from an address in shared memory on. Where the steps are neighbours in a row, the
// stride leads to the next eight rows. Where they are rows (transposed), it leads to the next eight steps, and the
// leading offset to the next tile, after 64 of the other dimension.
BERTFAST_HD constexpr uint64_t descriptor(uint32_t address, bool transposed) {
    constexpr uint64_t SWIZZLE_128 = 1;
    const uint64_t leading = transposed ? sizeof(SwizzledTile) : 16;  // only has a meaning if transposed
    return (address & 0x3FFFF) >> 4 | leading >> 4 << 16 | uint64_t{GROUP_BYTES >> 4} << 32 | SWIZZLE_128 << 62;
}

// The distance in bytes from step 0 to step k, a multiple of 16.
BERTFAST_HD constexpr int step_bytes(int k, bool transposed) {
    return transposed ? k * ROW_BYTES : k * 2;
}

// The place, in its warpgroup's 64 rows, of an element that a thread holds.
BERTFAST_HD constexpr Place fragment_place(int thread, int element) {
    return {thread / 32 % 4 * 16 + thread % 32 / 4 + element / 2 % 2 * 8,
            element / 4 * 8 + thread % 4 * 2 + element % 2};
}

#if defined(BERTFAST_WGMMA)
template <bool LEFT_TRANSPOSED, bool RIGHT_TRANSPOSED>
__device__ inline void add_product(uint64_t left, uint64_t right, float (&c)[16]) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, "
        "%13, %14, %15}, %16, %17, 1, 1, 1, %18, %19;"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]), "+f"(c[8]),
          "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15])
        : "l"(left), "l"(right), "n"(LEFT_TRANSPOSED), "n"(RIGHT_TRANSPOSED));
}

template <bool LEFT_TRANSPOSED, bool RIGHT_TRANSPOSED>
__device__ inline void add_product(uint64_t left, uint64_t right, float (&c)[32]) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, "
        "%13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, 1, "
        "1, 1, %34, %35;"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]), "+f"(c[8]),
          "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]), "+f"(c[16]),
          "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]),
          "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31])
        : "l"(left), "l"(right), "n"(LEFT_TRANSPOSED), "n"(RIGHT_TRANSPOSED));
}

template <bool LEFT_TRANSPOSED, bool RIGHT_TRANSPOSED>
__device__ inline void add_product(uint64_t left, uint64_t right, float (&c)[64]) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, "
        "%13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, "
        "%35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, "
        "%57, %58, %59, %60, %61, %62, %63}, %64, %65, 1, 1, 1, %66, %67;"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]), "+f"(c[8]),
          "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]), "+f"(c[16]),
          "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]),
          "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31]), "+f"(c[32]),
          "+f"(c[33]), "+f"(c[34]), "+f"(c[35]), "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39]), "+f"(c[40]),
          "+f"(c[41]), "+f"(c[42]), "+f"(c[43]), "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47]), "+f"(c[48]),
          "+f"(c[49]), "+f"(c[50]), "+f"(c[51]), "+f"(c[52]), "+f"(c[53]), "+f"(c[54]), "+f"(c[55]), "+f"(c[56]),
          "+f"(c[57]), "+f"(c[58]), "+f"(c[59]), "+f"(c[60]), "+f"(c[61]), "+f"(c[62]), "+f"(c[63])
        : "l"(left), "l"(right), "n"(LEFT_TRANSPOSED), "n"(RIGHT_TRANSPOSED));
}
#endif

// A warpgroup's products run between these two calls. After the second their sums are complete.
BERTFAST_HD void begin_products() {
#if defined(BERTFAST_WGMMA)
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

BERTFAST_HD void end_products() {
#if defined(BERTFAST_WGMMA)
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#endif
}

// Adds to a thread's elements the product of the left tile with 2 SIZE rows of the right tile from `first` on or, if
// transposed, with as many columns of adjacent right tiles, where `first` is a multiple of 64. All threads of a
// warpgroup call this together.
template <bool LEFT_TRANSPOSED, bool RIGHT_TRANSPOSED, int SIZE>
BERTFAST_HD void multiply(const SwizzledTile& left, const SwizzledTile* right, int first, int thread,
                          float (&sum)[SIZE]) {
#if defined(BERTFAST_WGMMA)
    const uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(left.data));
    const uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(right)) +
                        (RIGHT_TRANSPOSED ? first / TILE * static_cast<int>(sizeof(SwizzledTile)) : first * ROW_BYTES);
#pragma unroll
    for (int k = 0; k < TILE; k += 16) {
        add_product<LEFT_TRANSPOSED, RIGHT_TRANSPOSED>(
            descriptor(from + step_bytes(k, LEFT_TRANSPOSED), LEFT_TRANSPOSED),
            descriptor(at + step_bytes(k, RIGHT_TRANSPOSED), RIGHT_TRANSPOSED), sum);
    }
#else
    for (int element = 0; element < SIZE; ++element) {
        const Place place = fragment_place(thread, element);
        const int column = first + place.column;
        const SwizzledTile& tile = right[RIGHT_TRANSPOSED ? column / TILE : 0];
        for (int k = 0; k < TILE; ++k) {
            const int i = LEFT_TRANSPOSED ? SwizzledTile::index(k, place.row) : SwizzledTile::index(place.row, k);
            const int j = RIGHT_TRANSPOSED ? SwizzledTile::index(k, column % TILE) : SwizzledTile::index(column, k);
            sum[element] += to_float(left.data[i]) * to_float(tile.data[j]);
        }
    }
#endif
}

}  // namespace bertfast::cuda
