// The masked-LM loss straight from rows of hidden states, without logits in memory, on a CUDA stream (a cudaStream_t):
//
//     loss_i = w_i (log sum_c e^(x_ic) - x_il),  x_ic = rows[positions_i] . decoder_c + bias_c,  l = labels_i
//
// over c in [0, vocab_size). A label outside of it, or a position outside `rows`, reads nothing out of bounds: it makes
// the row's loss and gradients NaN.
#pragma once

#include "core/math/bfloat16.h"
#include "core/math/log_sum_exp.h"

namespace bertfast::cuda {

constexpr int64_t FUSED_MOST_HIDDEN = 256, FUSED_MOST_VOCABULARY = 1 << 24;

// What the backward pass must know of a row to have its probabilities anew: e^(x - maximum) scale is w times one. The
// vocabulary's numbers are exact in float32. A row of weight 0 is {FLT_MAX, 0, 0, -1}, one to be NaN has such a weight.
struct alignas(16) RowStatistics {
    float maximum, scale, weight, label;
};

struct FusedMlmLoss {
    const bfloat16* rows;      // (sources, hidden), like the decoder at multiples of 16 bytes
    const int64_t* positions;  // (count,) none twice; null: all, in order
    const bfloat16* decoder;   // (padded_vocab, hidden) what lies beyond vocab_size is never read
    const float* bias;         // (padded_vocab,)
    const int64_t* labels;     // (count,)
    const float* weights;      // (count,) a row of weight 0 has loss 0 and gradient 0
    int64_t sources, count, hidden, padded_vocab, vocab_size;  // hidden is a multiple of 8
    int64_t splits;  // into how many parts the vocabulary is cut, so that there are blocks enough; sums depend on it
};

struct FusedMlmLossForward : FusedMlmLoss {
    LogSumExp* partial;         // (splits, count) working memory, as is:
    float* label_logits;        // (count,)
    float* losses;              // (count,)
    RowStatistics* statistics;  // (count,)
};

struct FusedMlmLossBackward : FusedMlmLoss {
    const RowStatistics* statistics;
    const float* grad;       // (1,) of the sum of the losses
    float* partial;          // (splits, count, hidden) working memory
    bfloat16* grad_rows;     // (sources, hidden) at the positions; the other rows stay as they are
    bfloat16* grad_decoder;  // (padded_vocab, hidden) 0 beyond vocab_size
    float* grad_bias;        // (padded_vocab,) likewise
};

}  // namespace bertfast::cuda
