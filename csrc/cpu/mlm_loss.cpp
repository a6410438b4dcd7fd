#include "cpu/kernels.h"
#include "cpu/simd/parallel.h"
#include "cpu/simd/vector.h"

namespace bertfast::cpu::BERTFAST_ISA {

namespace {

constexpr int64_t GROUP = 8;  // vectors between two updates of the running maximum

// Sums in lanes and merges them at the end: lane i has the columns that are i modulo LANES. Prefetches the row `next`
// into the L2 cache, since memory takes about as long as arithmetic.
template <typename T>
LogSumExp log_sum_exp(const T* logits, const float* bias, int64_t columns, const T* next) {
    Floats greatest = broadcast(empty_log_sum_exp().maximum), total{};
    int64_t c = 0;
    for (; c + GROUP * LANES <= columns; c += GROUP * LANES) {
        Floats x[GROUP], so_far = greatest;
        for (int64_t i = 0; i < GROUP; ++i) {
            x[i] = load(logits + c + i * LANES) + load(bias + c + i * LANES);
            greatest = maximum(greatest, x[i]);
            __builtin_prefetch(next + c + i * LANES, 0, 2);
        }
        total *= exponential(so_far - greatest);
        for (int64_t i = 0; i < GROUP; ++i) total += exponential(x[i] - greatest);
    }
    for (; c < columns; c += LANES) {
        const int64_t count = columns - c < LANES ? columns - c : LANES;
        const Floats x = load(logits + c, count, -HUGE_VALF) + load(bias + c, count, 0.0f), so_far = greatest;
        greatest = maximum(greatest, x);
        total = total * exponential(so_far - greatest) + exponential(x - greatest);
    }
    const float row_greatest = maximum(greatest);
    return {row_greatest, sum(total * exponential(greatest - row_greatest))};
}

// Also adds the row's gradient to bias_gradient.
template <typename T>
void gradient_row(T* logits, const float* bias, int64_t columns, LogSumExp row, float weight, float* bias_gradient) {
    const float scale = weight / row.sum;
    int64_t c = 0;
    for (; c + LANES <= columns; c += LANES) {
        const Floats gradient = exponential(load(logits + c) + load(bias + c) - row.maximum) * scale;
        store(logits + c, gradient);
        store(bias_gradient + c, load(bias_gradient + c) + gradient);
    }
    if (c < columns) {
        const int64_t count = columns - c;
        const Floats x = load(logits + c, count, 0.0f) + load(bias + c, count, 0.0f);
        const Floats gradient = exponential(x - row.maximum) * scale;
        store(logits + c, gradient, count);
        store(bias_gradient + c, load(bias_gradient + c, count, 0.0f) + gradient, count);
    }
}

template <typename T>
void mlm_loss_row(const MlmLossChunk<T>& chunk, int64_t r, float* bias_gradient) {
    T* const logits = chunk.logits + r * chunk.columns;
    const float weight = chunk.weights[r];
    const int64_t label = chunk.labels[r];
    if (weight == 0.0f) {
        chunk.losses[r] = 0.0f;
        if (bias_gradient) memset(logits, 0, chunk.columns * sizeof(T));
        return;
    }
    const T* const next = r + 1 < chunk.rows ? logits + chunk.columns : logits;
    const LogSumExp row = log_sum_exp(logits, chunk.bias, chunk.vocab_size, next);
    const float label_logit = to_float(logits[label]) + chunk.bias[label];
    chunk.losses[r] = row_loss(row, label_logit, weight);
    if (!bias_gradient) return;
    gradient_row(logits, chunk.bias, chunk.vocab_size, row, weight, bias_gradient);
    from_float(weight * (expf(label_logit - row.maximum) / row.sum - 1.0f), logits[label]);
    bias_gradient[label] -= weight;
    memset(logits + chunk.vocab_size, 0, (chunk.columns - chunk.vocab_size) * sizeof(T));
}

template <typename T>
void mlm_loss_chunk(const MlmLossChunk<T>& chunk) {
    parallel_for(chunk.slices, 1, [&](int64_t begin, int64_t end) {
        for (int64_t slice = begin; slice < end; ++slice) {
            float* const bias_gradient = chunk.bias_gradient ? chunk.bias_gradient + slice * chunk.columns : nullptr;
            for (int64_t r = slice_begin(chunk, slice); r < slice_begin(chunk, slice + 1); ++r) {
                mlm_loss_row(chunk, r, bias_gradient);
            }
        }
    });
}

}  // namespace

void mlm_loss(const MlmLossChunk<float>& chunk) {
    mlm_loss_chunk(chunk);
}

void mlm_loss(const MlmLossChunk<bfloat16>& chunk) {
    mlm_loss_chunk(chunk);
}

}  // namespace bertfast::cpu::BERTFAST_ISA
