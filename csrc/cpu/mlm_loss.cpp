#include <memory>

#include "cpu/kernels.h"
#include "cpu/simd/parallel.h"
#include "cpu/simd/vector.h"

namespace bertfast::cpu::BERTFAST_ISA {

namespace {

constexpr int64_t GROUP = 8;  // vectors between two updates of the running maximum

// Of GROUP vectors, and of each vector that is left.
int64_t groups(int64_t columns) {
    const int64_t whole = columns / (GROUP * LANES);
    return whole + (columns - whole * GROUP * LANES + LANES - 1) / LANES;
}

// Sums in lanes and merges them at the end: lane i has the columns that are i modulo LANES. Prefetches the row `next`
// into the L2 cache, since memory takes about as long as arithmetic. With KEEP, each logit x becomes e^(x - m), where m
// is the greatest of its lane up to its group, and `maxima` gets each group's m: gradient_row needs no exponential for
// each of them again.
template <bool KEEP, typename T>
LogSumExp log_sum_exp(T* logits, const float* bias, int64_t columns, const T* next, float* maxima) {
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
        for (int64_t i = 0; i < GROUP; ++i) {
            const Floats e = exponential(x[i] - greatest);
            total += e;
            if (KEEP) store(logits + c + i * LANES, e);
        }
        if (KEEP) store(maxima, greatest), maxima += LANES;
    }
    for (; c < columns; c += LANES) {
        const int64_t count = columns - c < LANES ? columns - c : LANES;
        const Floats x = load(logits + c, count, -HUGE_VALF) + load(bias + c, count, 0.0f), so_far = greatest;
        greatest = maximum(greatest, x);
        const Floats e = exponential(x - greatest);
        total = total * exponential(so_far - greatest) + e;
        if (KEEP) store(logits + c, e, count), store(maxima, greatest), maxima += LANES;
    }
    const float row_greatest = maximum(greatest);
    return {row_greatest, sum(total * exponential(greatest - row_greatest))};
}

// Turns what log_sum_exp kept into the row's gradient, and adds it to bias_gradient, too.
template <typename T>
void gradient_row(T* kept, const float* maxima, int64_t columns, LogSumExp row, float weight, float* bias_gradient) {
    const float scale = weight / row.sum;
    int64_t c = 0;
    for (; c + GROUP * LANES <= columns; c += GROUP * LANES, maxima += LANES) {
        const Floats factor = exponential(load(maxima) - row.maximum) * scale;
        for (int64_t i = c; i < c + GROUP * LANES; i += LANES) {
            const Floats gradient = load(kept + i) * factor;
            store(kept + i, gradient);
            store(bias_gradient + i, load(bias_gradient + i) + gradient);
        }
    }
    for (; c < columns; c += LANES, maxima += LANES) {
        const int64_t count = columns - c < LANES ? columns - c : LANES;
        const Floats factor = exponential(load(maxima) - row.maximum) * scale;
        const Floats gradient = load(kept + c, count, 0.0f) * factor;
        store(kept + c, gradient, count);
        store(bias_gradient + c, load(bias_gradient + c, count, 0.0f) + gradient, count);
    }
}

template <typename T>
void mlm_loss_row(const MlmLossChunk<T>& chunk, int64_t r, float* bias_gradient, float* maxima) {
    T* const logits = chunk.logits + r * chunk.columns;
    const float weight = chunk.weights[r];
    const int64_t label = chunk.labels[r];
    if (weight == 0.0f) {
        chunk.losses[r] = 0.0f;
        if (bias_gradient) memset(logits, 0, chunk.columns * sizeof(T));
        return;
    }
    const T* const next = r + 1 < chunk.rows ? logits + chunk.columns : logits;
    const float label_logit = to_float(logits[label]) + chunk.bias[label];
    const auto sum_exponentials = bias_gradient ? log_sum_exp<true, T> : log_sum_exp<false, T>;
    const LogSumExp row = sum_exponentials(logits, chunk.bias, chunk.vocab_size, next, maxima);
    chunk.losses[r] = row_loss(row, label_logit, weight);
    if (!bias_gradient) return;
    gradient_row(logits, maxima, chunk.vocab_size, row, weight, bias_gradient);
    from_float(weight * (expf(label_logit - row.maximum) / row.sum - 1.0f), logits[label]);
    bias_gradient[label] -= weight;
    memset(logits + chunk.vocab_size, 0, (chunk.columns - chunk.vocab_size) * sizeof(T));
}

template <typename T>
void mlm_loss_chunk(const MlmLossChunk<T>& chunk) {
    parallel_for(chunk.slices, 1, [&](int64_t begin, int64_t end) {
        for (int64_t slice = begin; slice < end; ++slice) {
            float* const bias_gradient = chunk.bias_gradient ? chunk.bias_gradient + slice * chunk.columns : nullptr;
            const std::unique_ptr<float[]> maxima(new float[groups(chunk.vocab_size) * LANES]);
            for (int64_t r = slice_begin(chunk, slice); r < slice_begin(chunk, slice + 1); ++r) {
                mlm_loss_row(chunk, r, bias_gradient, maxima.get());
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
