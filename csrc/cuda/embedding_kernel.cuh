// The lanes of the embedding layer's kernels. Forward, a warp takes a token; backward, a slice of the tokens, one after
// the other. Then a block takes an entry of a table and adds up the gradients of its tokens.
#pragma once

#include "core/embedding.h"
#include "cuda/drop_four.cuh"
#include "cuda/warp_layer_norm.cuh"

namespace bertfast::cuda {

constexpr int64_t EMBEDDING_ROWS = 1;  // in a warp's shared memory

// The backward pass sums over tokens for weight, bias and each type.
BERTFAST_HD int64_t embedding_sums(const EmbeddingTables& tables) {
    return 2 + tables.types;
}

// The rows of these sums, of the embedding and of its gradient.
BERTFAST_HD int64_t embedding_backward_rows(const EmbeddingTables& tables) {
    return 2 + embedding_sums(tables);
}

// Row 0 = word + type + position. An id beyond its table reads nothing and makes the row NaN, since reporting it would
// stop the stream.
template <typename Whole>
BERTFAST_HD void add_up(const EmbeddingTables& tables, Whole whole, int64_t token, const WarpRows& warp) {
    const int64_t word = tables.input_ids[token], type = tables.token_type_ids[token];
    const int64_t position = tables.position_ids[token];
    const bool known = word >= 0 && word < tables.words && type >= 0 && type < tables.types && position >= 0 &&
                       position < tables.positions;
    for (int64_t c = warp.begin(); c < tables.hidden; c += WarpRows::STEP) {
        const int64_t left = tables.hidden - c;
        float sum[4] = {NAN, NAN, NAN, NAN};
        if (known) {
            float second[4], third[4];
            load_four(tables.word + word * tables.hidden + c, left, whole, sum);
            load_four(tables.type + type * tables.hidden + c, left, whole, second);
            load_four(tables.position + position * tables.hidden + c, left, whole, third);
            for (int i = 0; i < 4; ++i) sum[i] += second[i] + third[i];
        }
        store_four(sum, 4, true, warp.row(0) + c);
    }
}

// One of NORMALIZE_PHASES phases.
template <typename T, typename Whole>
BERTFAST_HD void embedding_phase(int phase, const EmbeddingLayerNorm<T>& call, Whole whole, int64_t token,
                                 const WarpRows& warp) {
    const auto put = [&](int64_t c, float (&x)[4]) {
        if (call.dropout.enabled) drop_four(call.dropout, call.row_keys[token], c, x);
        store_four(x, warp.columns - c, whole, call.out + token * warp.columns + c);
    };
    normalize_phase(
        phase, warp, call.weight, call.bias, call.eps, whole, call.moments + 2 * token,
        [&] { add_up(call.tables, whole, token, warp); }, put);
}

template <typename T, typename Whole, typename Lanes>
BERTFAST_HD void embedding_token(const EmbeddingLayerNorm<T>& call, Whole whole, int64_t token, const Lanes& lanes) {
    in_phases(NORMALIZE_PHASES, lanes,
              [&](int phase, const WarpRows& warp) { embedding_phase(phase, call, whole, token, warp); });
}

template <typename T, typename Whole>
BERTFAST_HD void embedding_backward_phase(int phase, const EmbeddingLayerNormBackward<T>& call, Whole whole,
                                          int64_t token, const WarpRows& warp) {
    const Moments moments{call.moments[2 * token], call.moments[2 * token + 1]};
    if (phase == 0) {
        add_up(call.tables, whole, token, warp);
        for (int64_t c = warp.begin(); c < warp.columns; c += WarpRows::STEP) {
            float grad[4];
            load_four(call.grad + token * warp.columns + c, warp.columns - c, whole, grad);
            if (call.dropout.enabled) drop_four(call.dropout, call.row_keys[token], c, grad);
            store_four(grad, 4, true, warp.row(1) + c);
        }
        phase_products(warp, moments, call.weight, whole);
        return;
    }
    const RowGradient gradient = row_gradient(warp, moments);
    const int64_t type = call.tables.token_type_ids[token];
    const bool known = type >= 0 && type < call.tables.types;
    for (int64_t c = warp.begin(); c < warp.columns; c += WarpRows::STEP) {
        float grad[4], sum[4];
        gradient_four(gradient, warp, c, grad);
        store_four(grad, warp.columns - c, whole, call.grad_sum + token * warp.columns + c);
        if (!known) continue;
        float* const to = warp.row(4 + type) + c;
        load_four(to, 4, true, sum);
        for (int i = 0; i < 4; ++i) sum[i] += grad[i];
        store_four(sum, 4, true, to);
    }
}

template <typename T, typename Whole, typename Lanes>
BERTFAST_HD void embedding_slice(const EmbeddingLayerNormBackward<T>& call, Whole whole, int64_t slice, int64_t slices,
                                 float* partial, const Lanes& lanes) {
    sum_slice(call.tables.tokens, slices, slice, embedding_sums(call.tables), whole, partial, lanes,
              [&](int phase, int64_t token, const WarpRows& warp) {
                  embedding_backward_phase(phase, call, whole, token, warp);
              });
}

// --- The gradient of a table, from the gradients of its tokens ---

constexpr int ENTRY_WARPS = 8, ENTRY_THREADS = ENTRY_WARPS * WARP, ENTRY_PHASES = 2;
constexpr int ENTRY_COLUMNS = 4 * WARP;  // of a block
constexpr int ENTRY_TOGETHER = 8;        // rows that a warp loads before it adds them

// An entry's tokens are in numbered places. `places` is their number; `token_at` is the token in a place, or -1 if the
// place is empty.
BERTFAST_HD int64_t places(const TokensByEntry& tokens, int64_t entry) {
    return tokens.begin[entry + 1] - tokens.begin[entry];
}

BERTFAST_HD int64_t token_at(const TokensByEntry& tokens, int64_t entry, int64_t place) {
    return tokens.order[tokens.begin[entry] + place];
}

BERTFAST_HD int64_t places(const TokensByPosition& tokens, int64_t) {
    return tokens.sequences;
}

BERTFAST_HD int64_t token_at(const TokensByPosition& tokens, int64_t position, int64_t place) {
    const int64_t token = tokens.cu_seqlens[place] + position;
    return token < tokens.cu_seqlens[place + 1] ? token : -1;
}

// Tokens: TokensByEntry or TokensByPosition.
template <typename Tokens>
struct EntrySums {
    const float* rows;  // (tokens, hidden)
    Tokens tokens;
    int64_t entries, hidden;
    float* grad;  // (entries, hidden), accumulated into
};

struct EntryShared {
    alignas(16) float sum[ENTRY_WARPS][ENTRY_COLUMNS];
};

// An entry's ENTRY_COLUMNS columns from `column` on. Warp w adds up every eighth place from the w-th on; then the eight
// sums are added to the gradient. The block has a barrier after each phase. `whole`: see in_fours.
template <typename Tokens, typename Whole>
BERTFAST_HD void entry_phase(int phase, const EntrySums<Tokens>& sums, Whole whole, int64_t entry, int64_t column,
                             int thread, EntryShared& shared) {
    const int64_t count = places(sums.tokens, entry);
    const int warp = thread / WARP, lane = thread % WARP * 4;
    const int64_t c = column + lane, left = sums.hidden - c;
    if (c >= sums.hidden || count == 0) return;
    if (phase == 0) {
        float sum[4] = {};
        for (int64_t first = warp; first < count; first += ENTRY_TOGETHER * ENTRY_WARPS) {
            float row[ENTRY_TOGETHER][4] = {};
            BERTFAST_UNROLL
            for (int i = 0; i < ENTRY_TOGETHER; ++i) {
                const int64_t place = first + i * ENTRY_WARPS;
                const int64_t token = place < count ? token_at(sums.tokens, entry, place) : -1;
                if (token >= 0) load_four(sums.rows + token * sums.hidden + c, left, whole, row[i]);
            }
            BERTFAST_UNROLL
            for (int i = 0; i < ENTRY_TOGETHER; ++i) {
                for (int j = 0; j < 4; ++j) sum[j] += row[i][j];
            }
        }
        store_four(sum, 4, true, shared.sum[warp] + lane);
        return;
    }
    if (warp > 0) return;
    float sum[4];
    float* const to = sums.grad + entry * sums.hidden + c;
    load_four(to, left, whole, sum);
    const int64_t used = count < ENTRY_WARPS ? count : ENTRY_WARPS;
    for (int64_t each = 0; each < used; ++each) {
        float part[4];
        load_four(shared.sum[each] + lane, 4, true, part);
        for (int j = 0; j < 4; ++j) sum[j] += part[j];
    }
    store_four(sum, left, whole, to);
}

}  // namespace bertfast::cuda
