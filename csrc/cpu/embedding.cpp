#include <cstdlib>
#include <new>

#include "cpu/dropout_factors.h"
#include "cpu/kernels.h"
#include "cpu/layer_norm_row.h"
#include "cpu/simd/row_sums.h"

namespace bertfast::cpu::BERTFAST_ISA {

namespace {

inline void add_up(const EmbeddingTables& tables, int64_t token, float* sum) {
    const float* const word = tables.word + tables.input_ids[token] * tables.hidden;
    const float* const type = tables.type + tables.token_type_ids[token] * tables.hidden;
    const float* const position = tables.position + tables.position_ids[token] * tables.hidden;
    for (int64_t c = 0; c < tables.hidden; c += LANES) {
        const int64_t left = tables.hidden - c;
        store(sum + c, load_upto(word + c, left) + load_upto(type + c, left) + load_upto(position + c, left));
    }
}

template <typename T>
void forward(const EmbeddingLayerNorm<T>& call) {
    const int64_t hidden = call.tables.hidden, row_size = round_up(hidden, LINE);
    parallel_for(call.tables.tokens, 1 + 8192 / (hidden + 1), [&](int64_t begin, int64_t end) {
        Scratch scratch(row_size + DropoutFactors::room_for(hidden));
        float* const sum = scratch.take(row_size);
        DropoutFactors factors(call.dropout, hidden, scratch);
        for (int64_t token = begin; token < end; ++token) {
            add_up(call.tables, token, sum);
            const Moments of_row = moments(sum, hidden, call.eps);
            memcpy(call.moments + 2 * token, &of_row, sizeof of_row);
            const float* const factor = factors.of(call.row_keys[token]);
            T* const out = call.out + token * hidden;
            for (int64_t c = 0; c < hidden; c += LANES) {
                const int64_t left = hidden - c;
                const Floats weight = load_upto(call.weight + c, left), bias = load_upto(call.bias + c, left);
                const Floats normal = normalized(load(sum + c), of_row) * weight + bias;
                store_upto(out + c, normal * load(factor + c), left);
            }
        }
    });
}

// The tokens of each entry of a table, in ascending order: a counting sort by id.
class SortedTokens {
  public:
    SortedTokens(const int64_t* ids, int64_t tokens, int64_t entries)
        : numbers_(static_cast<int64_t*>(std::calloc(entries + 1 + tokens, sizeof(int64_t)))),
          begin_(numbers_),
          order_(numbers_ + entries + 1) {
        if (!numbers_) throw std::bad_alloc();
        for (int64_t token = 0; token < tokens; ++token) ++begin_[ids[token] + 1];
        for (int64_t entry = 0; entry < entries; ++entry) begin_[entry + 1] += begin_[entry];
        for (int64_t token = 0; token < tokens; ++token) order_[begin_[ids[token]]++] = token;
        // Each entry's begin has advanced to its end, which is the next entry's begin.
        for (int64_t entry = entries; entry > 0; --entry) begin_[entry] = begin_[entry - 1];
        begin_[0] = 0;
    }
    ~SortedTokens() { std::free(numbers_); }
    SortedTokens(const SortedTokens&) = delete;
    SortedTokens& operator=(const SortedTokens&) = delete;

    const int64_t* begin(int64_t entry) const { return order_ + begin_[entry]; }
    const int64_t* end(int64_t entry) const { return order_ + begin_[entry + 1]; }

  private:
    int64_t* numbers_;
    int64_t* begin_;
    int64_t* order_;
};

// grad[e] += the sum of rows[t] over the tokens t of entry e, in ascending order for any number of threads.
void add_by_entry(const float* rows, const int64_t* ids, int64_t tokens, int64_t entries, int64_t hidden, float* grad) {
    const SortedTokens tokens_of(ids, tokens, entries);
    parallel_for(entries, 64, [&](int64_t begin, int64_t end) {
        for (int64_t entry = begin; entry < end; ++entry) {
            float* const to = grad + entry * hidden;
            for (const int64_t* token = tokens_of.begin(entry); token != tokens_of.end(entry); ++token) {
                const float* const row = rows + *token * hidden;
                int64_t c = 0;
                for (; c + LANES <= hidden; c += LANES) add_to(to + c, load(row + c));
                for (; c < hidden; ++c) to[c] += row[c];
            }
        }
    });
}

template <typename T>
void backward(const EmbeddingLayerNormBackward<T>& call) {
    const EmbeddingTables& tables = call.tables;
    const int64_t hidden = tables.hidden, row_size = round_up(hidden, LINE);
    // The few sums for weight, bias and the types.
    ColumnSums sums(tables.tokens, (2 + tables.types) * row_size);
    sums.over_chunks([&](int64_t begin, int64_t end, float* partial) {
        Scratch scratch(2 * row_size + DropoutFactors::room_for(hidden));
        float* const sum = scratch.take(row_size);
        float* const grad = scratch.take(row_size);
        DropoutFactors factors(call.dropout, hidden, scratch);
        for (int64_t token = begin; token < end; ++token) {
            add_up(tables, token, sum);
            const float* const factor = factors.of(call.row_keys[token]);
            const T* const upstream = call.grad + token * hidden;
            for (int64_t c = 0; c < hidden; c += LANES) {
                store(grad + c, load_upto(upstream + c, hidden - c) * load(factor + c));
            }
            Moments of_row;
            memcpy(&of_row, call.moments + 2 * token, sizeof of_row);
            normalize_backward(sum, of_row, call.weight, hidden, grad, partial, partial + row_size);
            float* const type = partial + (2 + tables.token_type_ids[token]) * row_size;
            for (int64_t c = 0; c < hidden; c += LANES) {
                store_upto(call.grad_sum + token * hidden + c, load(grad + c), hidden - c);
                add_to(type + c, load(grad + c));
            }
        }
    });
    sums.total(0, hidden, call.grad_weight);
    sums.total(row_size, hidden, call.grad_bias);
    for (int64_t type = 0; type < tables.types; ++type) {
        sums.total((2 + type) * row_size, hidden, call.grad_type + type * hidden);
    }
    add_by_entry(call.grad_sum, tables.input_ids, tables.tokens, tables.words, hidden, call.grad_word);
    add_by_entry(call.grad_sum, tables.position_ids, tables.tokens, tables.positions, hidden, call.grad_position);
}

}  // namespace

void embedding_layer_norm(const EmbeddingLayerNorm<float>& call) {
    forward(call);
}
void embedding_layer_norm(const EmbeddingLayerNorm<bfloat16>& call) {
    forward(call);
}
void embedding_layer_norm_backward(const EmbeddingLayerNormBackward<float>& call) {
    backward(call);
}
void embedding_layer_norm_backward(const EmbeddingLayerNormBackward<bfloat16>& call) {
    backward(call);
}

}  // namespace bertfast::cpu::BERTFAST_ISA
