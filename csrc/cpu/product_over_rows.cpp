#include <algorithm>

#include "cpu/kernels.h"
#include "cpu/simd/bf16_dot_pairs.h"
#include "cpu/simd/matrix.h"
#include "cpu/simd/parallel.h"
#include "cpu/simd/row_vectors.h"

namespace bertfast::cpu::BERTFAST_ISA {

namespace {

constexpr int64_t PANEL = TILE_VECTORS * LANES;          // columns that are packed side by side
constexpr int64_t STEPS = 256;                           // steps of a sum that are packed at a time
constexpr int64_t LEFT = 3 * PANEL, RIGHT = 16 * PANEL;  // columns that are packed at a time, to stay in the L2 cache

// A step of a sum takes one row of each matrix, in float32.
template <typename T>
struct Step {
    using Terms = FloatTerms;
    static constexpr int64_t TAKES = 1;

    // Packs the rows of `from`, `stride` apart, in panels of (steps, PANEL).
    static void pack(const T* from, int64_t stride, int64_t rows, int64_t columns, float* to) {
        for (int64_t row = 0; row < rows; ++row, from += stride, to += PANEL) {
            over_vectors(columns, [&](int64_t c, int64_t left) {
                store(to + c / PANEL * rows * PANEL + c % PANEL, load_upto(from + c, left));
            });
        }
    }
};

#if defined(__AVX512BF16__)
// Two rows of bfloat16 in pairs; the last may be alone.
template <>
struct Step<bfloat16> {
    using Terms = PairTerms;
    static constexpr int64_t TAKES = 2;

    static void pack(const bfloat16* from, int64_t stride, int64_t rows, int64_t columns, float* to) {
        const int64_t steps = (rows + 1) / 2;
        for (int64_t row = 0; row < rows; row += 2, from += 2 * stride, to += PANEL) {
            for (int64_t c = 0; c < columns; c += 2 * LANES) {
                const PartOfRow even = load_part(from + c, columns - c);
                const PartOfRow odd = row + 1 < rows ? load_part(from + stride + c, columns - c) : PartOfRow{};
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

// to (rows, columns) = or += a panel's product, neither more than PANEL. The kernel of products stores whole vectors:
// where they would not fit, it stores them at `edge` first.
template <typename Terms>
void multiply_panels(int64_t rows, int64_t columns, int64_t steps, const float* left, const float* right, float* to,
                     int64_t to_stride, bool add, float* edge) {
    if (columns % LANES == 0) {
        product<Terms>(rows, columns, steps, left, 1, PANEL, right, PANEL, to, to_stride, add);
        return;
    }
    product<Terms>(rows, columns, steps, left, 1, PANEL, right, PANEL, edge, PANEL, false);
    for (int64_t row = 0; row < rows; ++row, edge += PANEL, to += to_stride) {
        over_vectors(columns, [&](int64_t c, int64_t left_over) {
            const Floats sum = add ? load_upto(to + c, left_over) + load(edge + c) : load(edge + c);
            store_upto(to + c, sum, left_over);
        });
    }
}

// The columns [left_begin, left_end) of the left factor by [right_begin, right_end) of the right one.
template <typename T>
void multiply(const ProductOverRows<T>& call, int64_t left_begin, int64_t left_end, int64_t right_begin,
              int64_t right_end) {
    using Of = Step<T>;
    const int64_t most_right = std::min(RIGHT, round_up(right_end - right_begin, PANEL));
    Scratch scratch(STEPS * (LEFT + most_right) + PANEL * PANEL);
    float* const left_panels = scratch.take(STEPS * LEFT);
    float* const right_panels = scratch.take(STEPS * most_right);
    float* const edge = scratch.take(PANEL * PANEL);
    for (int64_t right = right_begin; right < right_end; right += RIGHT) {
        const int64_t right_columns = std::min(RIGHT, right_end - right);
        for (int64_t row = 0; row < call.rows; row += STEPS * Of::TAKES) {
            const int64_t rows = std::min(STEPS * Of::TAKES, call.rows - row);
            const int64_t steps = (rows + Of::TAKES - 1) / Of::TAKES;
            const bool add = call.add || row > 0;
            Of::pack(call.right + row * call.right_columns + right, call.right_columns, rows, right_columns,
                     right_panels);
            for (int64_t left = left_begin; left < left_end; left += LEFT) {
                const int64_t left_columns = std::min(LEFT, left_end - left);
                Of::pack(call.left + row * call.left_columns + left, call.left_columns, rows, left_columns,
                         left_panels);
                for (int64_t j = 0; j < right_columns; j += PANEL) {
                    for (int64_t i = 0; i < left_columns; i += PANEL) {
                        multiply_panels<typename Of::Terms>(
                            std::min(PANEL, left_columns - i), std::min(PANEL, right_columns - j), steps,
                            left_panels + i * steps, right_panels + j * steps,
                            call.to + (left + i) * call.right_columns + right + j, call.right_columns, add, edge);
                    }
                }
            }
        }
    }
}

// A thread takes some of the left panels; with more threads than these, also only a piece of the right ones. No sum is
// split, so that any number of threads gives the same bits.
template <typename T>
void multiply(const ProductOverRows<T>& call) {
    const auto panels = [](int64_t columns) { return (columns + PANEL - 1) / PANEL; };
    const int64_t lefts = panels(call.left_columns), rights = panels(call.right_columns);
    if (lefts == 0 || rights == 0) return;
    if (call.rows == 0 && !call.add) memset(call.to, 0, call.left_columns * call.right_columns * sizeof(float));
    const int64_t pieces = std::min(rights, (most_threads() + lefts - 1) / lefts);
    const int64_t work = PANEL * PANEL * rights / pieces * call.rows;  // multiplications of an item
    parallel_for(lefts * pieces, 1 + (1 << 21) / (work + 1), [&](int64_t begin, int64_t end) {
        while (begin < end) {
            const int64_t piece = begin / lefts, first = begin % lefts, last = std::min(lefts, first + end - begin);
            multiply(call, first * PANEL, std::min(last * PANEL, call.left_columns), rights * piece / pieces * PANEL,
                     std::min(rights * (piece + 1) / pieces * PANEL, call.right_columns));
            begin += last - first;
        }
    });
}

}  // namespace

void product_over_rows(const ProductOverRows<float>& call) {
    multiply(call);
}
void product_over_rows(const ProductOverRows<bfloat16>& call) {
    multiply(call);
}

}  // namespace bertfast::cpu::BERTFAST_ISA
