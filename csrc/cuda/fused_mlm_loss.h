// The arguments of the masked-LM loss that reads rows of hidden states and never stores the logits:
//
//     loss_i = w_i (log sum_c e^(x_ic) - x_il),  x_ic = rows[positions_i] . decoder_c + bias_c,  l = labels_i
//
// over c in [0, vocab_size). A label outside that range, or a position outside `rows`, reads nothing out of bounds: it
// makes the row's loss and gradients NaN.
#pragma once

#include "core/math/bfloat16.h"
#include "core/math/log_sum_exp.h"

namespace bertfast::cuda {

constexpr int64_t FUSED_MAX_HIDDEN = 256, FUSED_MAX_VOCABULARY = 1 << 24;

// What the backward pass needs to recompute a row's probabilities: e^(x - maximum) scale is w times the probability.
// Labels are exact in float32. A row of weight 0 is {FLT_MAX, 0, 0, -1}; a row that must be NaN has a NaN weight.
struct alignas(16) RowStatistics {
    float maximum, scale, weight, label;
};

struct FusedMlmLoss {
    const bfloat16* rows;      // (sources, hidden), aligned to 16 bytes like the decoder
    const int64_t* positions;  // (count,) no position twice; null: all rows, in order
    const bfloat16* decoder;   // (padded_vocab, hidden) rows from vocab_size on are never read
    const float* bias;         // (padded_vocab,)
    const int64_t* labels;     // (count,)
    const float* weights;      // (count,) a row of weight 0 has loss 0 and gradient 0
    int64_t sources, count, hidden, padded_vocab, vocab_size;  // hidden is a multiple of 8
    int64_t splits;  // parts of the vocabulary, for enough blocks; the sums' rounding depends on it
};

struct FusedMlmLossForward : FusedMlmLoss {
    LogSumExp* partial;         // (splits, count) working memory, like label_logits
    float* label_logits;        // (count,)
    float* losses;              // (count,)
    RowStatistics* statistics;  // (count,)
};

struct FusedMlmLossBackward : FusedMlmLoss {
    const RowStatistics* statistics;
    const float* grad;       // (1,) gradient of the sum of the losses
    float* partial;          // (splits, count, hidden) working memory
    bfloat16* grad_rows;     // (sources, hidden) written at the positions; other rows stay unchanged
    bfloat16* grad_decoder;  // (padded_vocab, hidden) 0 beyond vocab_size
    float* grad_bias;        // (padded_vocab,) likewise
};

}  // namespace bertfast::cuda
