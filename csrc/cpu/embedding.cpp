#include <cstdlib>
#include <new>

#include "cpu/dropout_factors.h"
#include "cpu/kernels.h"
#include "cpu/layer_norm_rows.h"
#include "cpu/simd/row_sums.h"

namespace bertfast::cpu::BERTFAST_ISA {

namespace {

// The vectors of word + type + position of the tokens from `first` on.
inline auto added_up(const EmbeddingTables& tables, int64_t first) {
    return [=, &tables](int64_t r, int64_t c, int64_t left) {
        const int64_t token = first + r;
        const float* const word = tables.word + tables.input_ids[token] * tables.hidden;
        const float* const type = tables.type + tables.token_type_ids[token] * tables.hidden;
        const float* const position = tables.position + tables.position_ids[token] * tables.hidden;
        return load_upto(word + c, left) + load_upto(type + c, left) + load_upto(position + c, left);
    };
}

template <typename T>
void forward(const EmbeddingLayerNorm<T>& call) {
    const int64_t hidden = call.tables.hidden, row_size = round_up(hidden, LINE);
    parallel_for(call.tables.tokens, 1 + 8192 / (hidden + 1), [&](int64_t begin, int64_t end) {
        Scratch scratch(ROWS * (row_size + DropoutFactors::room_for(hidden)));
        float* const working = scratch.take(ROWS * row_size);
        DropoutFactors factors(call.dropout, hidden, scratch, ROWS);
        few_at_a_time(begin, end, [&](int64_t token, int64_t rows) {
            const float* const factor = factors.of(call.row_keys + token, rows);
            const auto put = [&](int64_t r, int64_t c, int64_t left, Floats normal) {
                store_upto(call.out + (token + r) * hidden + c, normal * load(factor + r * factors.stride() + c), left);
            };
            normalize(rows, hidden, call.weight, call.bias, call.eps, added_up(call.tables, token), put,
                      call.moments + 2 * token, working, row_size);
        });
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
        Scratch scratch(ROWS * (2 * row_size + DropoutFactors::room_for(hidden)));
        float* const working = scratch.take(2 * ROWS * row_size);
        DropoutFactors factors(call.dropout, hidden, scratch, ROWS);
        few_at_a_time(begin, end, [&](int64_t token, int64_t rows) {
            const float* const factor = factors.of(call.row_keys + token, rows);
            const auto grad_at = [&](int64_t r, int64_t c, int64_t left) {
                return load_upto(call.grad + (token + r) * hidden + c, left) * load(factor + r * factors.stride() + c);
            };
            const auto put = [&](int64_t r, int64_t c, int64_t left, Floats grad) {
                store_upto(call.grad_sum + (token + r) * hidden + c, grad, left);
                add_to(partial + (2 + tables.token_type_ids[token + r]) * row_size + c, grad);
            };
            normalize_backward(rows, hidden, call.moments + 2 * token, call.weight, added_up(tables, token), grad_at,
                               put, partial, partial + row_size, working, row_size);
        });
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
