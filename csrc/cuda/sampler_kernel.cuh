// The threads of the sampler's kernels, which draw sentence pairs and masks (core/sampling has the rules), split at
// their barriers: phase p of every thread of a block runs before phase p + 1 of any.
#pragma once

#include "core/sampling/batch.h"
#include "core/sampling/masking.h"

namespace bertfast::cuda {

// --- Prefix sums: one block, a stretch of values for each thread ---

constexpr int SCAN_THREADS = 256;
constexpr int SCAN_STEPS = 8;  // 2^SCAN_STEPS == SCAN_THREADS
constexpr int SCAN_PHASES = SCAN_STEPS + 2;

struct ScanShared {
    int32_t sum[2][SCAN_THREADS];
};

// Turns values[1] ... values[count] into their running sums, in place, with values[0] = 0 before them.
BERTFAST_HD void scan_phase(int phase, ScanShared& shared, int thread, int32_t* values, int64_t count) {
    const int64_t begin = 1 + count * thread / SCAN_THREADS, end = 1 + count * (thread + 1) / SCAN_THREADS;
    if (phase == 0) {
        int32_t sum = 0;
        for (int64_t i = begin; i < end; ++i) sum += values[i];
        shared.sum[0][thread] = sum;
    } else if (phase <= SCAN_STEPS) {
        const int distance = 1 << (phase - 1), from = (phase - 1) % 2;
        const int32_t before = thread >= distance ? shared.sum[from][thread - distance] : 0;
        shared.sum[1 - from][thread] = shared.sum[from][thread] + before;
    } else {
        int32_t sum = thread > 0 ? shared.sum[SCAN_STEPS % 2][thread - 1] : 0;
        if (thread == 0) values[0] = 0;
        for (int64_t i = begin; i < end; ++i) {
            sum += values[i];
            values[i] = sum;
        }
    }
}

// --- One example's predictions: one block ---

// Arrays by candidate, except `word`, which is by rank.
struct MaskShared {
    uint32_t* key;
    int32_t* decider;  // the candidate whose action decides what replaces this one, or NOT_PREDICTED
    int32_t* starts;   // words and spans: 1 where a word begins
    int32_t* word;     // words and spans: the first candidate of the word with this rank, or -1
    int32_t* count;    // predictions
};

BERTFAST_HD int64_t mask_shared_bytes(const SamplerOptions& options) {
    return (int64_t{masks_words(options) ? 4 : 2} * options.max_len + 1) * int64_t{sizeof(int32_t)};
}

BERTFAST_HD MaskShared mask_shared(int32_t* memory, const SamplerOptions& options) {
    const int64_t most = options.max_len;
    MaskShared shared = {};
    shared.count = memory;
    shared.key = reinterpret_cast<uint32_t*>(memory + 1);
    shared.decider = memory + 1 + most;
    if (masks_words(options)) {
        shared.starts = memory + 1 + 2 * most;
        shared.word = memory + 1 + 3 * most;
    }
    return shared;
}

// What a block's thread works on.
struct ExampleBlock {
    const Corpus& corpus;
    const SamplerOptions& options;
    uint64_t g;
    Example example;
    MaskShared shared;
    int thread, threads;
};

// How many candidates precede this one by (key, candidate), among all or among those that begin a word.
BERTFAST_HD int64_t rank_of(const MaskShared& shared, int64_t candidate, int64_t candidates) {
    const uint32_t key = shared.key[candidate];
    int64_t rank = 0;
    for (int64_t c = 0; c < candidates; ++c) {
        const bool before = shared.key[c] < key || (shared.key[c] == key && c < candidate);
        rank += before && (!shared.starts || shared.starts[c]);
    }
    return rank;
}

constexpr int CHOOSE_PHASES = 3;

BERTFAST_HD void choose_phase(int phase, const ExampleBlock& block) {
    const MaskShared& shared = block.shared;
    const bool words = masks_words(block.options);
    const int64_t candidates = num_candidates(block.example);
    const int64_t k = mask_count(block.options, length(block.example), candidates);
    if (phase == 2) {
        if (block.thread > 0) return;
        int64_t count = words ? 0 : k;
        for (int64_t rank = 0; rank < candidates && count < k && shared.word[rank] >= 0; ++rank) {
            count += predict_words(block.options, block.g, block.example, shared.word[rank], k - count, shared.starts,
                                   shared.decider);
        }
        *shared.count = static_cast<int32_t>(count);
        return;
    }
    for (int64_t c = block.thread; c < candidates; c += block.threads) {
        if (phase == 0) {
            shared.key[c] = mask_draw(block.options, block.g, position_of(block.example, c)).word[0];
            shared.decider[c] = NOT_PREDICTED;
            if (words) {
                shared.starts[c] = begins_word(block.corpus, block.options, block.example, c);
                shared.word[c] = -1;
            }
        } else if (!words) {
            if (rank_of(shared, c, candidates) < k) shared.decider[c] = static_cast<int32_t>(c);
        } else if (shared.starts[c]) {
            shared.word[rank_of(shared, c, candidates)] = static_cast<int32_t>(c);
        }
    }
}

// --- Writing one example: one block ---

BERTFAST_HD void write_token(const ExampleBlock& block, const Batch& batch, const Row& row, int64_t position) {
    const Example& example = block.example;
    const int64_t tokens = length(example), first_sep = example.a_len + 1, i = row.token + position;
    int32_t id = block.options.pad;
    if (position == 0) {
        id = block.options.cls;
    } else if (position == first_sep || position == tokens - 1) {
        id = block.options.sep;
    } else if (position < tokens) {
        id = candidate_token(block.corpus, example, position - (position < first_sep ? 1 : 2));
    }
    batch.input_ids[i] = id;
    batch.token_type_ids[i] = position > first_sep && position < tokens;
    if (batch.position_ids) {
        batch.position_ids[i] = position;
        batch.row_keys[i] = static_cast<int64_t>(block.g * block.options.max_len) + position;
    }
    if (batch.attention_mask) batch.attention_mask[i] = position < tokens;
}

BERTFAST_HD void write_prediction(const ExampleBlock& block, const Batch& batch, const Row& row, int64_t candidate) {
    int64_t i = row.prediction;
    for (int64_t c = 0; c < candidate; ++c) i += block.shared.decider[c] != NOT_PREDICTED;
    const int64_t position = position_of(block.example, candidate), decider = block.shared.decider[candidate];
    const int32_t token = candidate_token(block.corpus, block.example, candidate);
    Philox drawn = mask_draw(block.options, block.g, position);
    if (decider != candidate) {
        drawn.word[1] = mask_draw(block.options, block.g, position_of(block.example, decider)).word[1];
    }
    batch.masked_positions[i] = row.position_base + position;
    batch.labels[i] = token;
    batch.input_ids[row.token + position] = masked_token(block.options, token, drawn);
}

constexpr int WRITE_PHASES = 2;

// Runs after choose_phase; the barrier after its last phase suffices.
BERTFAST_HD void write_phase(int phase, const ExampleBlock& block, const Batch& batch, const Row& row, int64_t i) {
    const int64_t candidates = num_candidates(block.example);
    if (phase == 0) {
        for (int64_t p = block.thread; p < row.width; p += block.threads) write_token(block, batch, row, p);
        for (int64_t slot = block.thread; slot < row.predictions; slot += block.threads) {
            const bool padding = slot >= *block.shared.count;
            if (padding) batch.masked_positions[row.prediction + slot] = batch.labels[row.prediction + slot] = 0;
            if (batch.mlm_weights) batch.mlm_weights[row.prediction + slot] = padding ? 0.0f : 1.0f;
        }
        if (block.thread == 0 && batch.next_sentence_label) {
            batch.next_sentence_label[i] = block.example.not_next;
        }
    } else {
        // The replacements overwrite tokens that phase 0 wrote.
        for (int64_t c = block.thread; c < candidates; c += block.threads) {
            if (block.shared.decider[c] != NOT_PREDICTED) write_prediction(block, batch, row, c);
        }
    }
}

}  // namespace bertfast::cuda
