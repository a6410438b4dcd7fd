// The row-wise parts of attention, which don't depend on the type of its products: biases, softmax and its gradient.
#pragma once

#include "core/attention.h"
#include "cpu/simd/row_vectors.h"

namespace bertfast::cpu::BERTFAST_ISA {

// Queries whose scores are held at once: 96 rows of 512 scores are 200 kB.
constexpr int64_t BLOCK = 96;

// One head's biases of queries, keys and values, as rows of whole cache lines; null if the kernel adds none.
class HeadBiases {
  public:
    const float *query = nullptr, *key = nullptr, *value = nullptr;

    HeadBiases(const AttentionShape& shape, Scratch& scratch)
        : shape_(shape), row_(round_up(shape.head_dim, LINE)), rows_(scratch.take(room_for(shape))) {}

    static int64_t room_for(const AttentionShape& shape) { return 3 * round_up(shape.head_dim, LINE); }

    void select(int64_t head) {
        const int64_t width = shape_.head_dim, first = head * width;
        if (shape_.query_bias) query = whole_row(shape_.query_bias + first, width, rows_);
        if (!shape_.key_value_bias) return;
        key = whole_row(shape_.key_value_bias + first, width, rows_ + row_);
        value = whole_row(shape_.key_value_bias + shape_.heads * width + first, width, rows_ + 2 * row_);
    }

  private:
    const AttentionShape& shape_;
    int64_t row_;
    float* rows_;
};

// Sets the scores after the sequence's last key to -infinity. `row` holds whole vectors.
static inline void hide_padding(float* row, int64_t keys) {
    const int64_t last = keys / LANES * LANES;
    if (last == keys) return;
    Ints lane;
    for (int64_t i = 0; i < LANES; ++i) lane[i] = static_cast<int32_t>(i);
    store(row + last, lane < static_cast<int32_t>(keys - last) ? load(row + last) : broadcast(-HUGE_VALF));
}

// The softmax of a row of scores q k^T. They are scaled only after their greatest, or their log-sum-exp, is subtracted,
// so that differences that should be 0 are exactly 0.
struct Softmax {
    float greatest, sum;  // of e^(scale (score - greatest))

    float log_sum_exp(float scale) const { return greatest + std::log(sum) / scale; }
};

// Stores e^(scale (score - greatest)) times dropout's factor, in whole vectors. The sum is taken before dropout.
template <typename T>
static inline Softmax softmax(float* scores, int64_t keys, float scale, const float* factors, T* to) {
    hide_padding(scores, keys);
    Floats greatest = load(scores);
    for (int64_t j = LANES; j < keys; j += LANES) greatest = maximum(greatest, load(scores + j));
    const float shift = maximum(greatest);
    Floats total = {};
    for (int64_t j = 0; j < keys; j += LANES) {
        const Floats e = exponential((load(scores + j) - shift) * scale);
        total += e;
        store(to + j, e * load(factors + j));
    }
    return {shift, sum(total)};
}

// With P the probabilities, F dropout's factors, D = P F the dropped ones and G = (grad v^T) F the gradient of P, the
// gradient of the scaled scores is S = P (G - rowsum(P G)). Computes D and S, in whole vectors, from the scores and
// grad v^T, and overwrites both.
template <typename T>
static inline void backward_row(float* scores, float* gradients, int64_t keys, float scale, float log_sum_exp,
                                const float* factors, T* dropped, T* grad_scores) {
    hide_padding(scores, keys);
    Floats products = {};
    for (int64_t j = 0; j < keys; j += LANES) {
        const Floats probability = exponential((load(scores + j) - log_sum_exp) * scale);
        const Floats gradient = load(gradients + j) * load(factors + j);
        store(scores + j, probability);
        store(gradients + j, gradient);
        products += probability * gradient;
    }
    const float mean = sum(products);
    for (int64_t j = 0; j < keys; j += LANES) {
        const Floats probability = load(scores + j);
        store(grad_scores + j, probability * (load(gradients + j) - mean));
        store(dropped + j, probability * load(factors + j));
    }
}

}  // namespace bertfast::cpu::BERTFAST_ISA
