// How a block's 256 threads share the products of the fused masked-LM loss: by warps (mma.sync, tile/mma.cuh), or by
// two warpgroups (wgmma, tile/wgmma.cuh). A thread holds COUNT logits in each of HELD rows, in runs of neighbours.
// IN_ROW threads share a row, IN_COLUMN a column.
#pragma once

#include "cuda/tile/mma.cuh"
#include "cuda/tile/wgmma.cuh"

namespace bertfast::cuda {

// A block's rows, in tiles of 64: their gradient, the largest sum, takes 64 registers of a thread.
template <int ROW_TILES_, int HIDDEN_TILES_>
struct FusedSize {
    static constexpr int ROW_TILES = ROW_TILES_, HIDDEN_TILES = HIDDEN_TILES_;
    static constexpr int ROWS = ROW_TILES * TILE, MAX_HIDDEN = HIDDEN_TILES * TILE;
    // A thread's elements of each result.
    static constexpr int LOGITS = ROW_TILES * TILE_ELEMENTS;
    static constexpr int GRAD_ROWS = ROW_TILES * HIDDEN_TILES * TILE_ELEMENTS;
    static constexpr int GRAD_WORDS = HIDDEN_TILES * TILE_ELEMENTS;
};

using NarrowRows = FusedSize<2, 2>;
using WideRows = FusedSize<1, 4>;

// A thread's logits, in runs that are 4 RUN columns apart.
template <int RUN_>
struct Runs {
    static constexpr int RUN = RUN_;
    // The column of the i-th logit in a row, counted from the thread's first.
    BERTFAST_HD_MEMBER static constexpr int column(int i) { return i / RUN * 4 * RUN + i % RUN; }
    // The element that holds the i-th logit of a held row.
    BERTFAST_HD_MEMBER static constexpr int element(int held, int i) {
        return held / 2 * TILE_ELEMENTS + i / RUN * 2 * RUN + held % 2 * RUN + i % RUN;
    }
};

// In a block with two tiles of rows, 8 products of 16 x 8 x 16 take a warp 4 loads of 512 bytes from shared memory for
// the logits, 3 for the gradient of the rows and 5 for that of the words.
//
// `rows[d][i]` is row tile i of hidden tile d, `words[d]` likewise, `gradients[i]` of row tile i.
template <typename Size_>
struct WarpProducts : Runs<4> {
    using Size = Size_;
    using Operand = Tile<bfloat16>;
    static constexpr int HELD = 2 * Size::ROW_TILES, COUNT = 8, IN_ROW = 8, IN_COLUMN = 32;

    BERTFAST_HD_MEMBER static constexpr Place first(int thread, int held) {
        Place at = place<bfloat16>(thread, held % 2 * 4, false);
        at.row += held / 2 * TILE;
        return at;
    }
    BERTFAST_HD_MEMBER static constexpr int part_of_row(int thread) { return thread / 128 * 4 + thread % 4; }
    BERTFAST_HD_MEMBER static constexpr int part_of_column(int thread) { return thread % 128 / 4; }

    BERTFAST_HD_MEMBER static void logits(const Operand (*rows)[Size::ROW_TILES], const Operand* words, int thread,
                                          float (&sum)[Size::LOGITS]) {
        for (int d = 0; d < Size::HIDDEN_TILES; ++d) {
            multiply<false, false, Size::ROW_TILES, 1>(rows[d][0], words[d], thread, sum);
        }
    }

    BERTFAST_HD_MEMBER static void grad_rows(const Operand* gradients, const Operand* words, int thread,
                                             float (&sum)[Size::GRAD_ROWS]) {
        multiply<false, true, Size::ROW_TILES, Size::HIDDEN_TILES>(gradients[0], words[0], thread, sum);
    }
    BERTFAST_HD_MEMBER static constexpr Place place_in_rows(int thread, int i) {
        const int tile = i / TILE_ELEMENTS;
        const Place at = place<bfloat16>(thread, i % TILE_ELEMENTS, true);
        return {tile / Size::HIDDEN_TILES * TILE + at.row, tile % Size::HIDDEN_TILES * TILE + at.column};
    }

    BERTFAST_HD_MEMBER static void grad_words(const Operand* gradients, const Operand (*rows)[Size::ROW_TILES],
                                              int thread, float (&sum)[Size::GRAD_WORDS]) {
        BERTFAST_UNROLL
        for (int i = 0; i < Size::ROW_TILES; ++i) {
            multiply<true, true, 1, Size::HIDDEN_TILES>(gradients[i], rows[0][i], thread, sum, 1, Size::ROW_TILES);
        }
    }
    BERTFAST_HD_MEMBER static constexpr Place place_in_words(int thread, int i) { return place_in_rows(thread, i); }
};

// With two tiles of rows, each warpgroup has one. With one, they share the columns of each result.
template <typename Size_>
struct WarpgroupProducts : Runs<2> {
    using Size = Size_;
    using Operand = SwizzledTile;
    static constexpr bool BY_ROWS = Size::ROW_TILES == 2;
    static constexpr int HELD = 2, COUNT = Size::LOGITS / HELD;
    static constexpr int IN_ROW = BY_ROWS ? 4 : 8, IN_COLUMN = BY_ROWS ? 64 : 32;

    BERTFAST_HD_MEMBER static constexpr Place first(int thread, int held) {
        const int group = thread / 128;
        const Place at = fragment_place(thread, 2 * held);
        return BY_ROWS ? Place{group * TILE + at.row, at.column} : Place{at.row, group * 32 + at.column};
    }
    BERTFAST_HD_MEMBER static constexpr int part_of_row(int thread) {
        return BY_ROWS ? thread % 4 : thread / 128 * 4 + thread % 4;
    }
    BERTFAST_HD_MEMBER static constexpr int part_of_column(int thread) {
        return BY_ROWS ? thread / 4 : thread % 128 / 4;
    }

    BERTFAST_HD_MEMBER static void logits(const Operand (*rows)[Size::ROW_TILES], const Operand* words, int thread,
                                          float (&sum)[Size::LOGITS]) {
        const int group = thread / 128;
        begin_products();
        BERTFAST_UNROLL
        for (int d = 0; d < Size::HIDDEN_TILES; ++d) {
            multiply<false, false>(rows[d][BY_ROWS ? group : 0], words + d, BY_ROWS ? 0 : 32 * group, thread, sum);
        }
        end_products();
    }

    BERTFAST_HD_MEMBER static void grad_rows(const Operand* gradients, const Operand* words, int thread,
                                             float (&sum)[Size::GRAD_ROWS]) {
        const int group = thread / 128;
        begin_products();
        multiply<false, true>(gradients[BY_ROWS ? group : 0], words, BY_ROWS ? 0 : 128 * group, thread, sum);
        end_products();
    }
    BERTFAST_HD_MEMBER static constexpr Place place_in_rows(int thread, int i) {
        const int group = thread / 128;
        const Place at = fragment_place(thread, i);
        return BY_ROWS ? Place{group * TILE + at.row, at.column} : Place{at.row, group * 128 + at.column};
    }

    // Only the hidden tiles of one tile of rows are adjacent. Where there are two, a warpgroup takes one of them.
    BERTFAST_HD_MEMBER static void grad_words(const Operand* gradients, const Operand (*rows)[Size::ROW_TILES],
                                              int thread, float (&sum)[Size::GRAD_WORDS]) {
        const int group = thread / 128;
        begin_products();
        BERTFAST_UNROLL
        for (int i = 0; i < Size::ROW_TILES; ++i) {
            multiply<true, true>(gradients[i], &rows[BY_ROWS ? group : 0][i], BY_ROWS ? 0 : 128 * group, thread, sum);
        }
        end_products();
    }
    BERTFAST_HD_MEMBER static constexpr Place place_in_words(int thread, int i) {
        const Place at = fragment_place(thread, i);
        return {at.row, thread / 128 * (2 * Size::GRAD_WORDS) + at.column};
    }
};

}  // namespace bertfast::cuda
