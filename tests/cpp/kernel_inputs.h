// Inputs for kernels: random numbers, packed sequences, the tokens of each table entry, and the tensors of a step of
// Adam.
#pragma once

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "core/adam.h"
#include "core/attention.h"
#include "core/math/bfloat16.h"

namespace bertfast {

template <typename T>
std::vector<T> random_floats(int64_t count, std::mt19937& random, float scale = 1.0f) {
    std::normal_distribution<float> normal;
    std::vector<T> values(count);
    for (T& value : values) from_float(scale * normal(random), value);
    return values;
}

inline std::vector<int64_t> random_ints(int64_t count, std::mt19937& random, int64_t below) {
    std::vector<int64_t> values(count);
    for (int64_t& value : values) value = static_cast<int64_t>(random() % static_cast<uint64_t>(below));
    return values;
}

template <typename T>
std::vector<float> floats_of(const std::vector<T>& values) {
    std::vector<float> floats;
    for (const T value : values) floats.push_back(to_float(value));
    return floats;
}

// Offsets of sequences, from the number of queries and of keys in each. A sequence with queries has keys.
struct PackedSequences {
    std::vector<int32_t> cu_queries = {0}, cu_keys = {0};
    int64_t longest = 0;

    PackedSequences(const std::vector<int32_t>& queries, const std::vector<int32_t>& keys) {
        for (size_t i = 0; i < queries.size(); ++i) {
            cu_queries.push_back(cu_queries.back() + queries[i]);
            cu_keys.push_back(cu_keys.back() + keys[i]);
            longest = std::max({longest, int64_t{queries[i]}, int64_t{keys[i]}});
        }
    }

    AttentionShape shape(int64_t heads, int64_t width, const std::vector<int64_t>& row_keys, bool drops = true) const {
        return {static_cast<int64_t>(cu_queries.size()) - 1,
                heads,
                width,
                cu_queries.data(),
                cu_keys.data(),
                longest,
                row_keys.data(),
                make_dropout(drops ? 0.2 : 0.0, 13, 256)};
    }

    int64_t query_size(int64_t heads, int64_t width) const { return cu_queries.back() * heads * width; }
    int64_t key_value_size(int64_t heads, int64_t width) const { return 2 * cu_keys.back() * heads * width; }
};

// The tokens in a stable order of their ids, and where each entry's tokens begin.
struct OrderByEntry {
    std::vector<int64_t> order, begin;

    OrderByEntry(const std::vector<int64_t>& ids, int64_t entries) : order(ids.size()), begin(entries + 1) {
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return ids[a] < ids[b]; });
        for (const int64_t id : ids) ++begin[id + 1];
        std::partial_sum(begin.begin(), begin.end(), begin.begin());
    }
};

// The positions of tokens in sequences of up to `longest`, some of them empty.
struct Places {
    std::vector<int64_t> positions;
    std::vector<int32_t> cu_seqlens{0};

    Places(int64_t tokens, int64_t longest, std::mt19937& random) {
        while (cu_seqlens.back() < tokens) {
            const int64_t begin = cu_seqlens.back(),
                          length = std::min<int64_t>(random() % (longest + 1), tokens - begin);
            for (int64_t i = 0; i < length; ++i) positions.push_back(i);
            cu_seqlens.push_back(static_cast<int32_t>(begin + length));
        }
    }

    int64_t sequences() const { return static_cast<int64_t>(cu_seqlens.size()) - 1; }
};

// Parameters and their state, of any sizes. All tensors of a kind share one array, so that they may be unaligned.
struct AdamState {
    std::vector<int64_t> sizes;
    std::vector<float> parameters, gradients, exp_avgs, exp_avg_sqs, rule;
    std::vector<bfloat16> copies;

    AdamState(const std::vector<int64_t>& sizes, std::mt19937& random, bool refused = false)
        : sizes(sizes), rule{3.0f, 0.01f, 0.5f, refused ? 1.0f : 0.0f} {
        const int64_t count = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
        parameters = random_floats<float>(count, random);
        gradients = random_floats<float>(count, random);
        exp_avgs = random_floats<float>(count, random);
        exp_avg_sqs = random_floats<float>(count, random);
        for (float& each : exp_avg_sqs) each *= each;
        copies = random_floats<bfloat16>(count, random);
    }

    // The tensors, and the rule, at these addresses.
    static std::vector<AdamTensor> tensors(const std::vector<int64_t>& sizes, float* parameters, const float* gradients,
                                           float* exp_avgs, float* exp_avg_sqs, bfloat16* copies) {
        std::vector<AdamTensor> tensors;
        int64_t at = 0;
        for (const int64_t size : sizes) {
            tensors.push_back({parameters + at, gradients + at, exp_avgs + at, exp_avg_sqs + at,
                               copies == nullptr ? nullptr : copies + at, size});
            at += size;
        }
        return tensors;
    }

    static AdamRule rule_at(const float* rule) { return {rule, rule + 1, rule + 2, rule + 3, 0.9, 0.999, 1e-8}; }

    // step(tensors, count, rule)
    template <typename Step>
    void take(const Step& step, bool copied = true) {
        const auto list = tensors(sizes, parameters.data(), gradients.data(), exp_avgs.data(), exp_avg_sqs.data(),
                                  copied ? copies.data() : nullptr);
        step(list.data(), static_cast<int64_t>(list.size()), rule_at(rule.data()));
    }
};

}  // namespace bertfast
