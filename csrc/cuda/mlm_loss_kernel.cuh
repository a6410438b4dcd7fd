// The threads of the masked-LM loss's two kernels. In mlm_loss a block takes a row, in phases with a barrier after
// each: phase_sum, phase_merge for halves THREADS / 2 ... 1, phase_gradient. In bias_gradient a thread takes a pack of
// columns of one slice.
#pragma once

#include "core/mlm_loss.h"

namespace bertfast::cuda {

constexpr int MLM_LOSS_THREADS = 256;

// What one memory access moves.
template <typename T>
struct alignas(MLM_LOSS_ALIGNMENT) Pack {
    static constexpr int SIZE = MLM_LOSS_ALIGNMENT / sizeof(T);
    T element[SIZE];
};

template <typename T>
BERTFAST_HD Pack<T>& pack_at(T* address) {
    return *reinterpret_cast<Pack<T>*>(address);
}

struct MlmLossShared {
    LogSumExp part[MLM_LOSS_THREADS];
    float label_logit;  // with its bias; NaN if the label is outside the vocabulary
};

// The pack's logits with their bias; -infinity from vocab_size on.
template <typename T>
BERTFAST_HD void load_logits(const MlmLossChunk<T>& chunk, const T* logits, int64_t column, float (&x)[Pack<T>::SIZE]) {
    const Pack<T> pack = pack_at(const_cast<T*>(logits + column));
    for (int i = 0; i < Pack<T>::SIZE; i += Pack<float>::SIZE) {
        const Pack<float> bias = pack_at(const_cast<float*>(chunk.bias + column + i));
        for (int j = 0; j < Pack<float>::SIZE; ++j) {
            x[i + j] = column + i + j < chunk.vocab_size ? to_float(pack.element[i + j]) + bias.element[j] : -HUGE_VALF;
        }
    }
}

template <typename T>
BERTFAST_HD void phase_sum(const MlmLossChunk<T>& chunk, int64_t row, int thread, MlmLossShared& shared) {
    const T* const logits = chunk.logits + row * chunk.columns;
    LogSumExp part = empty_log_sum_exp();
    if (chunk.weights[row] != 0.0f) {
        for (int64_t c = thread * Pack<T>::SIZE; c < chunk.vocab_size; c += MLM_LOSS_THREADS * Pack<T>::SIZE) {
            float x[Pack<T>::SIZE];
            load_logits(chunk, logits, c, x);
            LogSumExp pack = empty_log_sum_exp();
            for (float each : x) pack.maximum = each > pack.maximum ? each : pack.maximum;
            for (float each : x) pack.sum += fast_exponential(each - pack.maximum);
            part = merge(part, pack);
        }
    }
    shared.part[thread] = part;
    if (thread == 0) {
        const int64_t label = chunk.labels[row];
        const bool known = label >= 0 && label < chunk.vocab_size;
        shared.label_logit = known ? to_float(logits[label]) + chunk.bias[label] : NAN;
    }
}

BERTFAST_HD void phase_merge(int half, int thread, MlmLossShared& shared) {
    if (thread < half) shared.part[thread] = merge(shared.part[thread], shared.part[thread + half]);
}

template <typename T>
BERTFAST_HD void phase_gradient(const MlmLossChunk<T>& chunk, int64_t row, int thread, const MlmLossShared& shared) {
    T* const logits = chunk.logits + row * chunk.columns;
    const LogSumExp total = shared.part[0];
    const int64_t label = chunk.labels[row];
    // A label outside the vocabulary makes the loss and the row's gradients NaN.
    const float weight = shared.label_logit == shared.label_logit ? chunk.weights[row] : NAN;
    if (thread == 0) chunk.losses[row] = weight == 0.0f ? 0.0f : row_loss(total, shared.label_logit, weight);
    if (!chunk.bias_gradient) return;
    const float scale = weight / total.sum;
    for (int64_t c = thread * Pack<T>::SIZE; c < chunk.columns; c += MLM_LOSS_THREADS * Pack<T>::SIZE) {
        Pack<T> gradient;
        if (weight == 0.0f) {
            for (T& each : gradient.element) from_float(0.0f, each);
        } else {
            float x[Pack<T>::SIZE];
            load_logits(chunk, logits, c, x);
            for (int i = 0; i < Pack<T>::SIZE; ++i) {
                const float share = fast_exponential(x[i] - total.maximum) * scale;
                from_float(c + i == label ? share - weight : share, gradient.element[i]);
            }
        }
        pack_at(logits + c) = gradient;
    }
}

// item in [0, slices * columns / pack size)
template <typename T>
BERTFAST_HD void bias_gradient_thread(const MlmLossChunk<T>& chunk, int64_t item) {
    const int64_t packs = chunk.columns / Pack<T>::SIZE, slice = item / packs, column = item % packs * Pack<T>::SIZE;
    float total[Pack<T>::SIZE] = {};
    for (int64_t row = slice_begin(chunk, slice); row < slice_begin(chunk, slice + 1); ++row) {
        const Pack<T> gradient = pack_at(chunk.logits + row * chunk.columns + column);
        for (int i = 0; i < Pack<T>::SIZE; ++i) total[i] += to_float(gradient.element[i]);
    }
    float* const to = chunk.bias_gradient + slice * chunk.columns + column;
    for (int i = 0; i < Pack<T>::SIZE; ++i) to[i] += total[i];
}

}  // namespace bertfast::cuda
