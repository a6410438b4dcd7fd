// One chunk of the masked-LM loss: its arguments on host and device.
//
//     loss_r = w_r (log sum_c e^(x_rc + b_c) - (x_rl + b_l)),  l = labels_r,  c in [0, vocab_size)
//     d loss_r / d x_rc = w_r (e^(x_rc + b_c) / sum - [c = l])
//
// The gradient replaces x in place, so that the chunk of logits is the only large thing in memory.
#pragma once

#include "core/math/bfloat16.h"
#include "core/math/log_sum_exp.h"

namespace bertfast {

// In bytes: logits and bias are aligned to it. The kernels for CUDA need that.
constexpr int64_t MLM_LOSS_ALIGNMENT = 16;

template <typename T>
struct MlmLossChunk {
    T* logits;              // (rows, columns) in: x, without the bias; out: d loss / d x, 0 from vocab_size on
    const float* bias;      // (columns,)
    const int64_t* labels;  // (rows,) in [0, vocab_size)
    const float* weights;   // (rows,) a row of weight 0 has loss 0 and gradient 0, whatever its logits
    int64_t rows, columns, vocab_size;
    float* losses;         // (rows,)
    float* bias_gradient;  // (slices, columns) the sum of its rows' gradients is added to slice s; null: only the
                           // losses are computed, and the logits stay
    int64_t slices;        // slice s holds the rows from slice_begin(s) to slice_begin(s + 1)
};

template <typename T>
BERTFAST_HD int64_t slice_begin(const MlmLossChunk<T>& chunk, int64_t slice) {
    return chunk.rows * slice / chunk.slices;
}

BERTFAST_HD float row_loss(LogSumExp row, float label_logit, float weight) {
    return weight * (logf(row.sum) + (row.maximum - label_logit));
}

}  // namespace bertfast
