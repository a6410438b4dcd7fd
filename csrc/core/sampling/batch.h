// A batch as the sampler writes it, into the caller's buffers: packed (rows one after another) or padded (each row
// max_len wide).
#pragma once

#include "core/host_device.h"

namespace bertfast {

struct Batch {
    const int32_t* cu_seqlens;     // packed: where each row begins; null in a padded batch
    const int32_t* cu_masked;      // packed: where each row's predictions begin
    int64_t max_len;               // padded: columns
    int64_t max_predictions;       // padded: columns of the predictions
    int64_t* input_ids;            //
    int64_t* token_type_ids;       //
    int64_t* position_ids;         // packed
    int64_t* row_keys;             // packed
    int64_t* attention_mask;       // padded
    int64_t* masked_positions;     //
    int64_t* labels;               //
    float* mlm_weights;            // padded
    int64_t* next_sentence_label;  // null without pairs
};

// One example's part of a batch: `width` tokens from `token` on, and `predictions` predictions from `prediction` on.
// Everything beyond the example's own length is padding.
struct Row {
    int64_t token, width;
    int64_t prediction, predictions;
    int64_t position_base;  // added to a position to give its masked_positions
};

BERTFAST_HD Row row_of(const Batch& batch, int64_t i) {
    if (batch.cu_seqlens) {
        const int64_t token = batch.cu_seqlens[i], prediction = batch.cu_masked[i];
        return {token, batch.cu_seqlens[i + 1] - token, prediction, batch.cu_masked[i + 1] - prediction, token};
    }
    return {i * batch.max_len, batch.max_len, i * batch.max_predictions, batch.max_predictions, 0};
}

}  // namespace bertfast
