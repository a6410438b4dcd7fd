// The threads of the fused masked-LM loss. A block holds a tile of the logits in its registers. For the loss, and for
// the gradient of the rows, a block has a tile of rows and loops over the words of a split of the vocabulary; for the
// gradients of decoder and bias it has 64 words and loops over the rows. Further kernels add up the results of the
// splits, in the splits' order.
//
// Both kinds of blocks of the backward pass recompute the logits. The tiles of the loop are double-buffered: while one
// is multiplied, the next is copied. Rows after the last one with a weight, such as those that pad a batch, are never
// read.
//
// With R rows, H hidden and V words that is 10 R H V operations, 2 R H V of them forward (the chunked form takes 6 R H
// V in all), and 3 R V exponentials. With T rows in a tile (128 up to H = 128, else 64) the three kinds of blocks copy
// 2 H V R / T, 2 H V R / T and 2 H V R / 64 bytes, nearly all from the L2 cache.
#pragma once

#include "core/mlm_loss.h"
#include "cuda/column_sums_kernel.cuh"
#include "cuda/fused_mlm_loss.h"
#include "cuda/fused_mlm_loss_products.cuh"
#include "cuda/vectorized_access.cuh"

namespace bertfast::cuda {

enum class LoopsOver { words, rows };

BERTFAST_HD RowStatistics no_row() {
    return {FLT_MAX, 0.0f, 0.0f, -1.0f};
}

// The row of `rows` that prediction `row` reads; -1 if there is none.
BERTFAST_HD int source_of(const FusedMlmLoss& call, int64_t row) {
    if (row >= call.count) return -1;
    const int64_t source = call.positions ? call.positions[row] : row;
    return source >= 0 && source < call.sources ? static_cast<int>(source) : -1;
}

// The label, or -1 if it is outside the vocabulary.
BERTFAST_HD float known_label(const FusedMlmLoss& call, int64_t row) {
    const int64_t label = call.labels[row];
    return label >= 0 && label < call.vocab_size ? static_cast<float>(label) : -1.0f;
}

// Products: WarpProducts or WarpgroupProducts.
template <typename Products, LoopsOver LOOP>
struct FusedShared {
    using Size = typename Products::Size;
    static constexpr int ROW_BUFFERS = LOOP == LoopsOver::rows ? 2 : 1, WORD_BUFFERS = 3 - ROW_BUFFERS;

    typename Products::Operand rows[ROW_BUFFERS][Size::HIDDEN_TILES][Size::ROW_TILES];
    typename Products::Operand words[WORD_BUFFERS][Size::HIDDEN_TILES];
    union {
        typename Products::Operand gradients[Size::ROW_TILES];  // of the logits
        LogSumExp row_part[Size::ROWS][Products::IN_ROW];       // one part for each thread that shares the row
        float bias_part[Products::IN_COLUMN][TILE];             // likewise, for a column
    };
    RowStatistics statistics[ROW_BUFFERS][Size::ROWS];
    int source[ROW_BUFFERS][Size::ROWS];  // of the rows in the buffer, or of the next ones
    float bias[WORD_BUFFERS][TILE];       // -infinity from vocab_size on
    int last[TILE_THREADS];
};

template <typename Products, LoopsOver LOOP>
struct FusedRegisters {
    using Size = typename Products::Size;

    float logits[Size::LOGITS];
    float sum[LOOP == LoopsOver::words ? Size::GRAD_ROWS : Size::GRAD_WORDS];
    LogSumExp row[Products::HELD];  // for the thread's rows
    float bias[Products::COUNT];    // for its columns
};

template <typename Products, LoopsOver LOOP, typename Block>
class FusedMlmLossBlock {
    using Shared = FusedShared<Products, LOOP>;
    using Registers = FusedRegisters<Products, LOOP>;
    using Size = typename Products::Size;
    using Operand = typename Products::Operand;
    static constexpr int ROWS = Size::ROWS, HELD = Products::HELD, COUNT = Products::COUNT, RUN = Products::RUN;

  public:
    BERTFAST_HD_MEMBER FusedMlmLossBlock(Block& block, const FusedMlmLoss& call, Shared& shared)
        : block_(block), call_(call), shared_(shared) {}

    // `row`: the first of the tile.
    BERTFAST_HD_MEMBER void forward(const FusedMlmLossForward& call, int64_t row, int64_t split) {
        if (weighted_end(row, ROWS) == row) return;
        block_.each([&](int thread, Registers& mine) {
            if (thread < ROWS) {
                const bool is_row = row + thread < call.count;
                shared_.statistics[0][thread].label = is_row ? known_label(call, row + thread) : -1.0f;
            }
            BERTFAST_UNROLL
            for (int held = 0; held < HELD; ++held) mine.row[held] = empty_log_sum_exp();
        });
        for_each_word_tile(row, split, [&](int64_t word, int buffer, const auto& next) {
            block_.each([&](int thread, Registers& mine) {
                next(thread);
                make_logits(thread, 0, buffer, mine);
                add_to_rows(call, thread, row, word, mine);
                block_.wait(thread);
            });
        });
        block_.each([&](int thread, Registers& mine) {
            BERTFAST_UNROLL
            for (int held = 0; held < HELD; ++held) {
                shared_.row_part[Products::first(thread, held).row][Products::part_of_row(thread)] = mine.row[held];
            }
        });
        block_.each([&](int thread, Registers&) {
            if (thread >= ROWS || row + thread >= call.count) return;
            LogSumExp total = empty_log_sum_exp();
            for (const LogSumExp& part : shared_.row_part[thread]) total = merge(total, part);
            call.partial[split * call.count + row + thread] = total;
        });
    }

    BERTFAST_HD_MEMBER void grad_rows(const FusedMlmLossBackward& call, int64_t row, int64_t split) {
        if (weighted_end(row, ROWS) == row) return;
        block_.each([&](int thread, Registers& mine) {
            load_statistics(call, thread, row, 0);
            clear(mine.sum);
        });
        for_each_word_tile(row, split, [&](int64_t word, int buffer, const auto& next) {
            block_.each([&](int thread, Registers& mine) {
                next(thread);
                make_logits(thread, 0, buffer, mine);
                make_gradients(thread, word, 0, mine);
                block_.publish(thread);
            });
            block_.each([&](int thread, Registers& mine) {
                Products::grad_rows(shared_.gradients, shared_.words[buffer], thread, mine.sum);
                block_.wait(thread);
            });
        });
        float* const to = call.partial + (split * call.count + row) * call.hidden;
        block_.each([&](int thread, Registers& mine) {
            BERTFAST_UNROLL
            for (int i = 0; i < Size::GRAD_ROWS; ++i) {
                store(Products::place_in_rows(thread, i), mine.sum[i], call.count - row, to);
            }
        });
    }

    // `word`: the first of the tile.
    BERTFAST_HD_MEMBER void grad_words(const FusedMlmLossBackward& call, int64_t word) {
        const int64_t end = word < call.vocab_size ? weighted_end(0, call.count) : 0;
        block_.each([&](int thread, Registers&) {
            if (thread >= ROWS) return;
            for (const int buffer : {0, 1}) shared_.source[buffer][thread] = source_of(call, buffer * ROWS + thread);
        });
        block_.each([&](int thread, Registers& mine) {
            if (end > 0) {
                load_words(thread, word, 0);
                load_rows(thread, 0);
                load_statistics(call, thread, 0, 0);
            }
            clear(mine.sum);
            clear(mine.bias);
            block_.wait(thread);
        });
        for (int64_t row = 0; row < end; row += ROWS) {
            const int buffer = static_cast<int>(row / ROWS % 2);
            block_.each([&](int thread, Registers& mine) {
                if (row + ROWS < end) {
                    load_rows(thread, 1 - buffer);
                    load_statistics(call, thread, row + ROWS, 1 - buffer);
                }
                make_logits(thread, buffer, 0, mine);
                make_gradients(thread, word, buffer, mine);
                BERTFAST_UNROLL
                for (int i = 0; i < HELD * COUNT; ++i) {
                    mine.bias[i % COUNT] += mine.logits[Products::element(i / COUNT, i % COUNT)];
                }
                block_.publish(thread);
            });
            block_.each([&](int thread, Registers& mine) {
                // Reads this early, so that the copy in the next phase doesn't wait for it.
                const int source = thread < ROWS ? source_of(call, row + 2 * ROWS + thread) : -1;
                Products::grad_words(shared_.gradients, shared_.rows[buffer], thread, mine.sum);
                if (thread < ROWS) shared_.source[buffer][thread] = source;
                block_.wait(thread);
            });
        }
        block_.each([&](int thread, Registers& mine) {
            bfloat16* const to = call.grad_decoder + word * call.hidden;
            const float grad = *call.grad;
            BERTFAST_UNROLL
            for (int i = 0; i < Size::GRAD_WORDS; ++i) {
                store(Products::place_in_words(thread, i), mine.sum[i] * grad, call.padded_vocab - word, to);
            }
            float* const part = shared_.bias_part[Products::part_of_column(thread)] + Products::first(thread, 0).column;
            BERTFAST_UNROLL
            for (int i = 0; i < COUNT; ++i) part[Products::column(i)] = mine.bias[i];
        });
        block_.each([&](int thread, Registers&) {
            if (thread >= TILE || word + thread >= call.padded_vocab) return;
            float total = 0.0f;
            for (const auto& part : shared_.bias_part) total += part[thread];
            call.grad_bias[word + thread] = total * *call.grad;
        });
    }

  private:
    // The end of the last row with a weight among `rows` rows from `first` on; `first` if there is none.
    BERTFAST_HD_MEMBER int64_t weighted_end(int64_t first, int64_t rows) {
        if (rows > call_.count - first) rows = call_.count - first;
        block_.each([&](int thread, Registers&) {
            shared_.last[thread] = 0;
            for (int64_t i = thread; i < rows; i += TILE_THREADS) {
                if (call_.weights[first + i] != 0.0f) shared_.last[thread] = static_cast<int>(i) + 1;
            }
        });
        int last = 0;
        for (const int each : shared_.last) last = each > last ? each : last;
        return first + last;
    }

    // Loads the rows and the first tile of a split, then calls body(first word, buffer, next) for each tile;
    // next(thread) starts to copy the following tile. The body's last phase waits for the copy.
    template <typename Body>
    BERTFAST_HD_MEMBER void for_each_word_tile(int64_t row, int64_t split, const Body& body) {
        const int64_t tiles = (call_.vocab_size + TILE - 1) / TILE;
        const int64_t begin = slice_row(tiles, call_.splits, split), end = slice_row(tiles, call_.splits, split + 1);
        block_.each([&](int thread, Registers&) {
            if (begin < end) load_words(thread, begin * TILE, 0);
            if (thread < ROWS) shared_.source[0][thread] = source_of(call_, row + thread);
        });
        block_.each([&](int thread, Registers&) {
            load_rows(thread, 0);
            block_.wait(thread);
        });
        for (int64_t tile = begin; tile < end; ++tile) {
            const int buffer = static_cast<int>((tile - begin) % 2);
            body(tile * TILE, buffer, [&](int thread) {
                if (tile + 1 < end) load_words(thread, (tile + 1) * TILE, 1 - buffer);
            });
        }
    }

    // --- Tiles ---

    // The rows in shared_.source.
    BERTFAST_HD_MEMBER void load_rows(int thread, int buffer) {
        for_each_piece<ROWS>(thread, [&](int line, int column) {
            const int64_t source = shared_.source[buffer][line];
            load_piece(thread, call_.rows, source, source >= 0, line % TILE, column,
                       shared_.rows[buffer][column / TILE][line / TILE]);
        });
    }

    BERTFAST_HD_MEMBER void load_words(int thread, int64_t word, int buffer) {
        for_each_piece<TILE>(thread, [&](int line, int column) {
            load_piece(thread, call_.decoder, word + line, word + line < call_.vocab_size, line, column,
                       shared_.words[buffer][column / TILE]);
        });
        if (thread >= TILE) return;
        if (word + thread < call_.vocab_size) {
            block_.copy(thread, true, call_.bias + word + thread, shared_.bias[buffer] + thread);
        } else {
            shared_.bias[buffer][thread] = -HUGE_VALF;
        }
    }

    BERTFAST_HD_MEMBER void load_statistics(const FusedMlmLossBackward& call, int thread, int64_t row, int buffer) {
        if (thread >= ROWS) return;
        RowStatistics& to = shared_.statistics[buffer][thread];
        if (row + thread < call.count) {
            block_.copy(thread, true, call.statistics + row + thread, &to);
        } else {
            to = no_row();
        }
    }

    // Calls body(row, first column) for a thread's pieces of a tile of `TILE_ROWS` rows.
    template <int TILE_ROWS, typename Body>
    BERTFAST_HD_MEMBER static void for_each_piece(int thread, const Body& body) {
        constexpr int SIZE = Piece<bfloat16>::SIZE, PIECES = Size::MAX_HIDDEN / SIZE;
        static_assert(TILE_ROWS * PIECES % TILE_THREADS == 0);
        BERTFAST_UNROLL
        for (int turn = 0; turn < TILE_ROWS * PIECES / TILE_THREADS; ++turn) {
            const int number = thread + turn * TILE_THREADS;
            body(number / PIECES, number % PIECES * SIZE);
        }
    }

    // Loads from row `row` of `rows`, or zeros where there is no such row or column.
    BERTFAST_HD_MEMBER void load_piece(int thread, const bfloat16* rows, int64_t row, bool is_row, int line, int column,
                                       Operand& tile) {
        bfloat16* const to = tile.data + Operand::index(line, column % TILE);
        block_.copy(thread, is_row && column < call_.hidden,
                    reinterpret_cast<const Piece<bfloat16>*>(rows + row * call_.hidden + column),
                    reinterpret_cast<Piece<bfloat16>*>(to));
    }

    // --- Logits and their gradients ---

    template <int SIZE>
    BERTFAST_HD_MEMBER static void clear(float (&sum)[SIZE]) {
        BERTFAST_UNROLL
        for (float& each : sum) each = 0.0f;
    }

    // The logits with their bias.
    BERTFAST_HD_MEMBER void make_logits(int thread, int row_buffer, int word_buffer, Registers& mine) const {
        clear(mine.logits);
        Products::logits(shared_.rows[row_buffer], shared_.words[word_buffer], thread, mine.logits);
        const float* const bias = shared_.bias[word_buffer] + Products::first(thread, 0).column;
        BERTFAST_UNROLL
        for (int i = 0; i < HELD * COUNT; ++i) {
            mine.logits[Products::element(i / COUNT, i % COUNT)] += bias[Products::column(i % COUNT)];
        }
    }

    // `row` and `word`: the first of the tile.
    BERTFAST_HD_MEMBER void add_to_rows(const FusedMlmLossForward& call, int thread, int64_t row, int64_t word,
                                        Registers& mine) const {
        BERTFAST_UNROLL
        for (int held = 0; held < HELD; ++held) {
            float x[COUNT], maximum = mine.row[held].maximum, sum = mine.row[held].sum, label_logit = 0.0f;
            BERTFAST_UNROLL
            for (int i = 0; i < COUNT; ++i) {
                x[i] = mine.logits[Products::element(held, i)];
                maximum = x[i] > maximum ? x[i] : maximum;
            }
            sum *= fast_exponential(mine.row[held].maximum - maximum);
            const Place at = Products::first(thread, held);
            const int label =
                static_cast<int>(shared_.statistics[0][at.row].label) - static_cast<int>(word) - at.column;
            bool is_label = false;
            BERTFAST_UNROLL
            for (int i = 0; i < COUNT; ++i) {
                sum += fast_exponential(x[i] - maximum);
                if (label == Products::column(i)) {
                    label_logit = x[i];
                    is_label = true;
                }
            }
            mine.row[held] = {maximum, sum};
            if (is_label) call.label_logits[row + at.row] = label_logit;
        }
    }

    // Replaces the logits by their gradients, and stores these, rounded, in shared memory.
    BERTFAST_HD_MEMBER void make_gradients(int thread, int64_t word, int row_buffer, Registers& mine) {
        struct alignas(2 * RUN) Run {
            bfloat16 element[RUN];
        };
        BERTFAST_UNROLL
        for (int held = 0; held < HELD; ++held) {
            const Place at = Products::first(thread, held);
            const RowStatistics row = shared_.statistics[row_buffer][at.row];
            const float shift = row.maximum * -LOG2_E;  // -infinity if there is no row
            const int label = static_cast<int>(row.label) - static_cast<int>(word) - at.column;
            BERTFAST_UNROLL
            for (int begin = 0; begin < COUNT; begin += RUN) {
                Run rounded;
                BERTFAST_UNROLL
                for (int i = 0; i < RUN; ++i) {
                    float& x = mine.logits[Products::element(held, begin + i)];
                    x = fast_power_of_two(x * LOG2_E + shift) * row.scale;
                    if (Products::column(begin + i) == label) x -= row.weight;
                    from_float(x, rounded.element[i]);
                }
                const int index = Operand::index(at.row % TILE, at.column + Products::column(begin));
                *reinterpret_cast<Run*>(shared_.gradients[at.row / TILE].data + index) = rounded;
            }
        }
    }

    // Stores an element of a tile of `rows` rows in a matrix of call_.hidden columns.
    template <typename T>
    BERTFAST_HD_MEMBER void store(Place at, float value, int64_t rows, T* to) const {
        if (at.row < rows && at.column < call_.hidden) from_float(value, to[at.row * call_.hidden + at.column]);
    }

    Block& block_;
    const FusedMlmLoss& call_;
    Shared& shared_;
};

// --- Sums over the splits ---

// The loss and statistics of one row.
BERTFAST_HD void add_losses(const FusedMlmLossForward& call, int64_t row) {
    float weight = call.weights[row];
    if (weight == 0.0f) {
        call.losses[row] = 0.0f;
        call.statistics[row] = no_row();
        return;
    }
    LogSumExp total = empty_log_sum_exp();
    for (int64_t split = 0; split < call.splits; ++split) {
        total = merge(total, call.partial[split * call.count + row]);
    }
    const float label = known_label(call, row);
    const bool known = label >= 0.0f && source_of(call, row) >= 0;
    if (!known) weight = NAN;
    call.losses[row] = known ? row_loss(total, call.label_logits[row], weight) : NAN;
    call.statistics[row] = {total.maximum, weight / total.sum, weight, label};
}

// The gradient of four columns; item in [0, count * hidden / 4).
BERTFAST_HD void add_grad_rows(const FusedMlmLossBackward& call, int64_t item) {
    const int64_t fours = call.hidden / 4, row = item / fours, column = item % fours * 4;
    const int64_t source = source_of(call, row);
    if (source < 0) return;
    float sum[4] = {};
    if (call.weights[row] != 0.0f) {
        for (int64_t split = 0; split < call.splits; ++split) {
            float part[4];
            load_four(call.partial + (split * call.count + row) * call.hidden + column, 4, true, part);
            for (int i = 0; i < 4; ++i) sum[i] += part[i];
        }
        for (float& each : sum) each *= *call.grad;
    }
    cuda::store_four(sum, 4, true, call.grad_rows + source * call.hidden + column);
}

}  // namespace bertfast::cuda
