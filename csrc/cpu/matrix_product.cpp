#include <algorithm>
#include <numeric>

#include "cpu/kernels.h"
#include "cpu/simd/bf16_dot_pairs.h"
#include "cpu/simd/matrix.h"
#include "cpu/simd/parallel.h"
#include "cpu/simd/row_vectors.h"

namespace bertfast::cpu::BERTFAST_ISA {

namespace {

constexpr int64_t PANEL = TILE_VECTORS * LANES;  // columns of the right factor that are packed side by side

// What is packed at a time stays in the L2 cache. A step is an element of each sum, or a pair of them.
constexpr int64_t STEPS = 1024;            // of the left factor's rows, which are read where they are
constexpr int64_t STEPS_OF_COLUMNS = 256;  // of the left factor's columns, which are packed
constexpr int64_t ROWS = 3 * PANEL;        // of the left factor
constexpr int64_t RIGHT = 1 << 17;         // steps times columns of the right factor
constexpr int64_t SUMMED_ROWS = 512;       // whose sums are float32 between two pieces of the depth

// How the elements of T are packed: a step takes one, in float32.
template <typename T>
struct Packing {
    using Terms = FloatTerms;
    static constexpr int64_t TAKES = 1;
    // Whether rows of `depth` elements are rows of steps where they are.
    static bool has_steps(int64_t /* depth */) { return sizeof(T) == sizeof(float); }

    // Rows of `count` elements, `stride` apart, to rows of `to_stride` steps.
    static void rows(const T* from, int64_t stride, int64_t rows, int64_t count, float* to, int64_t to_stride) {
        for (int64_t row = 0; row < rows; ++row, from += stride, to += to_stride) {
            over_vectors(count, [&](int64_t c, int64_t left) { store_upto(to + c, load_upto(from + c, left), left); });
        }
    }

    // A panel of (steps, PANEL) whose columns are these rows.
    static void columns(const T* from, int64_t stride, int64_t rows, int64_t count, float* to, float* /* padded */) {
        pack_transposed(from, stride, rows, count, nullptr, to, PANEL);
    }

    // Panels of (steps, PANEL), side by side, of these rows: one is a step.
    static void panels(const T* from, int64_t stride, int64_t rows, int64_t count, float* to) {
        for (int64_t row = 0; row < rows; ++row, from += stride, to += PANEL) {
            over_vectors(count, [&](int64_t c, int64_t left) {
                store(to + c / PANEL * rows * PANEL + c % PANEL, load_upto(from + c, left));
            });
        }
    }
};

#if defined(__AVX512BF16__)
// A step takes a pair of bfloat16; the last may be alone.
template <>
struct Packing<bfloat16> {
    using Terms = PairTerms;
    static constexpr int64_t TAKES = 2;
    static bool has_steps(int64_t depth) { return depth % 2 == 0; }

    static void rows(const bfloat16* from, int64_t stride, int64_t rows, int64_t count, float* to, int64_t to_stride) {
        pad(from, stride, rows, count, nullptr, reinterpret_cast<bfloat16*>(to), rows, 2 * to_stride);
    }

    static void columns(const bfloat16* from, int64_t stride, int64_t rows, int64_t count, float* to, float* padded) {
        const int64_t steps = (count + 1) / 2;
        if (has_steps(stride)) {
            pack_transposed(reinterpret_cast<const float*>(from), stride / 2, rows, steps, nullptr, to, PANEL);
        } else {
            Packing::rows(from, stride, rows, count, padded, steps);
            pack_transposed(padded, steps, rows, steps, nullptr, to, PANEL);
        }
    }

    static void panels(const bfloat16* from, int64_t stride, int64_t rows, int64_t count, float* to) {
        const int64_t steps = (rows + 1) / 2;
        for (int64_t row = 0; row < rows; row += 2, from += 2 * stride, to += PANEL) {
            for (int64_t c = 0; c < count; c += 2 * LANES) {
                const PartOfRow even = load_part(from + c, count - c);
                const PartOfRow odd = row + 1 < rows ? load_part(from + stride + c, count - c) : PartOfRow{};
                store_pairs(even, odd, to + c / PANEL * steps * PANEL + c % PANEL);
            }
        }
    }

  private:
    static PartOfRow load_part(const bfloat16* from, int64_t left) {
        PartOfRow part = {};
        if (left >= 2 * LANES) {
            memcpy(&part, from, sizeof part);
        } else {
            memcpy(&part, from, left * sizeof *from);
        }
        return part;
    }
};
#endif

// Rows of steps, or with `depth` PANEL columns of a panel.
struct Left {
    const float* data;
    int64_t row, depth;  // strides
};

// to (rows, columns) = left panel, plus `from` unless it is null; no more than PANEL columns. The kernel of products
// stores whole vectors: where they would not fit, it stores them at `edge` first.
template <typename Terms, typename From, typename To>
void multiply_panel(int64_t rows, int64_t columns, int64_t steps, const Left& left, const float* panel,
                    const From* from, int64_t from_stride, To* to, int64_t to_stride, float* edge) {
    if (columns % LANES == 0) {
        product_plus<Terms>(rows, columns, steps, left.data, left.row, left.depth, panel, PANEL, from, from_stride, to,
                            to_stride);
        return;
    }
    product<Terms>(rows, columns, steps, left.data, left.row, left.depth, panel, PANEL, edge, PANEL, false);
    for (int64_t row = 0; row < rows; ++row, edge += PANEL, to += to_stride) {
        over_vectors(columns, [&](int64_t c, int64_t left_over) {
            const Floats sum = load(edge + c);
            store_upto(to + c, from ? load_upto(from + row * from_stride + c, left_over) + sum : sum, left_over);
        });
    }
}

// A part of the result: its rows [row, end_row) and columns [column, end_column).
struct Part {
    int64_t row, end_row, column, end_column;
};

template <typename T, typename To>
class Multiplication {
  public:
    Multiplication(const MatrixProduct<T, To>& call, const Part& part)
        : call_(call),
          part_(part),
          at_once_(std::min(steps_of(call.depth), call.left.transposed ? STEPS_OF_COLUMNS : STEPS)),
          in_pieces_(at_once_ < steps_of(call.depth) && sizeof(To) != sizeof(float)),
          right_columns_(std::min(round_up(part.end_column - part.column, PANEL),
                                  std::max(PANEL, RIGHT / std::max<int64_t>(1, at_once_) / PANEL * PANEL))),
          left_rows_(std::min(ROWS, round_up(part.end_row - part.row, PANEL))),
          summed_rows_(in_pieces_ ? std::min(SUMMED_ROWS, part.end_row - part.row) : part.end_row - part.row),
          room_(round_up(at_once_, LINE)),
          scratch_(room_ * (left_rows_ + right_columns_ + PANEL) + left_rows_ * PANEL +
                   (in_pieces_ ? summed_rows_ * right_columns_ : 0)),
          left_(scratch_.take(room_ * left_rows_)),
          right_(scratch_.take(room_ * right_columns_)),
          padded_(scratch_.take(room_ * PANEL)),
          edge_(scratch_.take(left_rows_ * PANEL)),
          sums_(in_pieces_ ? scratch_.take(summed_rows_ * right_columns_) : nullptr) {}

    void run() {
        for (int64_t column = part_.column; column < part_.end_column; column += right_columns_) {
            const int64_t columns = std::min(right_columns_, part_.end_column - column);
            for (int64_t row = part_.row; row < part_.end_row; row += summed_rows_) {
                for (int64_t begin = 0; begin < call_.depth; begin += at_once_ * Of::TAKES) {
                    const int64_t end = std::min(call_.depth, begin + at_once_ * Of::TAKES);
                    pack_right(begin, end, column, columns);
                    multiply(begin, end, row, std::min(row + summed_rows_, part_.end_row), column, columns);
                }
            }
        }
    }

  private:
    using Of = Packing<T>;
    using Terms = typename Of::Terms;

    static int64_t steps_of(int64_t depth) { return (depth + Of::TAKES - 1) / Of::TAKES; }

    void pack_right(int64_t begin, int64_t end, int64_t column, int64_t columns) {
        if (!call_.right.transposed) {
            const T* const from = call_.right.data + begin * call_.columns + column;
            return Of::panels(from, call_.columns, end - begin, columns, right_);
        }
        for (int64_t j = 0; j < columns; j += PANEL) {
            Of::columns(call_.right.data + (column + j) * call_.depth + begin, call_.depth,
                        std::min(PANEL, columns - j), end - begin, right_ + j * steps_of(end - begin), padded_);
        }
    }

    // Rows of the left factor, where they are or packed.
    Left pack_left(int64_t begin, int64_t end, int64_t row, int64_t rows) {
        const Factor<T>& left = call_.left;
        if (left.transposed) {
            Of::panels(left.data + begin * call_.rows + row, call_.rows, end - begin, rows, left_);
            return {left_, 1, PANEL};
        }
        const T* const from = left.data + row * call_.depth + begin;
        if (Of::has_steps(call_.depth)) return {reinterpret_cast<const float*>(from), steps_of(call_.depth), 1};
        Of::rows(from, call_.depth, rows, end - begin, left_, steps_of(end - begin));
        return {left_, steps_of(end - begin), 1};
    }

    // Adds the terms [begin, end) to the sums of these rows and columns.
    void multiply(int64_t begin, int64_t end, int64_t first_row, int64_t end_row, int64_t column, int64_t columns) {
        const int64_t steps = steps_of(end - begin), stride = call_.columns;
        for (int64_t row = first_row; row < end_row; row += left_rows_) {
            const int64_t rows = std::min(left_rows_, end_row - row);
            const Left left = pack_left(begin, end, row, rows);
            // A panel of the right factor meets all rows, but of a packed left factor one panel at a time.
            const int64_t at_a_time = call_.left.transposed ? PANEL : rows;
            for (int64_t j = 0; j < columns; j += PANEL) {
                for (int64_t i = 0; i < rows; i += at_a_time) {
                    const int64_t count = std::min(at_a_time, rows - i), width = std::min(PANEL, columns - j);
                    const Left block = {left.data + (call_.left.transposed ? i * steps : 0), left.row, left.depth};
                    const float* const panel = right_ + j * steps;
                    const auto add_up = [&](auto* from, int64_t from_stride, auto* to, int64_t to_stride) {
                        multiply_panel<Terms>(count, width, steps, block, panel, from, from_stride, to, to_stride,
                                              edge_);
                    };
                    To* const to = call_.to + (row + i) * stride + column + j;
                    To* const from = call_.add || begin > 0 ? to : nullptr;  // but later, the sums that wait
                    float* const sums = in_pieces_ ? sums_ + (row + i - first_row) * right_columns_ + j : nullptr;
                    if (!in_pieces_) {
                        add_up(from, stride, to, stride);
                    } else if (begin == 0) {
                        add_up(from, stride, sums, right_columns_);
                    } else if (end < call_.depth) {
                        add_up(sums, right_columns_, sums, right_columns_);
                    } else {
                        add_up(sums, right_columns_, to, stride);
                    }
                }
            }
        }
    }

    const MatrixProduct<T, To>& call_;
    const Part part_;
    const int64_t at_once_;        // steps
    const bool in_pieces_;         // whether sums wait between pieces of the depth, in float32
    const int64_t right_columns_;  // that are packed at a time
    const int64_t left_rows_;      // that meet a panel at a time
    const int64_t summed_rows_;    // whose sums wait
    const int64_t room_;           // for these steps, in whole cache lines
    Scratch scratch_;
    float *const left_, *const right_, *const padded_, *const edge_, *const sums_;
};

// Threads share the columns, or with a packed left factor the longer side, so that few pack the same; where that does
// not give all of them as much, the other side too. No sum is split, so that any number of threads gives the same bits.
template <typename T, typename To>
void multiply(const MatrixProduct<T, To>& call) {
    const auto panels = [](int64_t count) { return (count + PANEL - 1) / PANEL; };
    if (call.rows == 0 || call.columns == 0) return;
    if (call.depth == 0) {
        if (!call.add) memset(call.to, 0, call.rows * call.columns * sizeof(To));
        return;
    }
    const bool by_rows = call.left.transposed && call.rows >= call.columns;
    const int64_t shared = panels(by_rows ? call.rows : call.columns), threads = most_threads();
    const int64_t others = panels(by_rows ? call.columns : call.rows);
    const int64_t pieces = shared >= 8 * threads ? 1 : std::min(others, threads / std::gcd(shared, threads));
    const int64_t work = PANEL * PANEL * others / pieces * call.depth;  // multiplications of an item
    const int64_t a_range = 1 + (1 << 21) / (work + 1), a_thread = (shared * pieces + threads - 1) / threads;
    // A range packs its own part of the right factor, but all that it needs of a packed left one.
    const int64_t grain = pieces == 1 && !call.left.transposed ? a_range : std::max(a_range, a_thread);
    parallel_for(shared * pieces, grain, [&](int64_t begin, int64_t end) {
        while (begin < end) {
            const int64_t piece = begin / shared, first = begin % shared, last = std::min(shared, first + end - begin);
            const int64_t other = others * piece / pieces, other_end = others * (piece + 1) / pieces;
            const Part part = by_rows ? Part{first, last, other, other_end} : Part{other, other_end, first, last};
            Multiplication<T, To>(call, {part.row * PANEL, std::min(part.end_row * PANEL, call.rows),
                                         part.column * PANEL, std::min(part.end_column * PANEL, call.columns)})
                .run();
            begin += last - first;
        }
    });
}

}  // namespace

void matrix_product(const MatrixProduct<float, float>& call) {
    multiply(call);
}
void matrix_product(const MatrixProduct<bfloat16, float>& call) {
    multiply(call);
}
void matrix_product(const MatrixProduct<bfloat16, bfloat16>& call) {
    multiply(call);
}

}  // namespace bertfast::cpu::BERTFAST_ISA
