// Inputs of attention, the results of the CPU's float32 kernels, and buffers for those of the kernel under test.
#pragma once

#include <algorithm>

#include "cpu/kernels.h"
#include "cpu/simd/dispatch.h"
#include "stepping.h"

namespace bertfast {

template <typename T>
class AttentionCase {
  public:
    // `queries` and `keys`: see PackedSequences.
    AttentionCase(const std::vector<int32_t>& queries, const std::vector<int32_t>& keys, int64_t heads, int64_t width,
                  bool drops)
        : random_(static_cast<uint32_t>(width)),
          sequences_(queries, keys),
          tokens_(sequences_.cu_queries.back()),
          query_size_(sequences_.query_size(heads, width)),
          key_size_(sequences_.key_value_size(heads, width)),
          query_(random_floats<T>(query_size_, random_)),
          key_value_(random_floats<T>(key_size_, random_)),
          grad_(random_floats<T>(query_size_, random_)),
          row_keys_(random_ints(tokens_, random_, int64_t{1} << 60)),
          out_(query_size_),
          log_sum_exp_(tokens_ * heads),
          grad_query_(query_size_),
          grad_key_value_(key_size_),
          our_out_(poisoned<T>(query_size_)),
          our_grad_query_(poisoned<T>(query_size_)),
          our_grad_key_value_(poisoned<T>(key_size_)),
          our_log_sum_exp_(poisoned<float>(tokens_ * heads)),
          shape(sequences_.shape(heads, width, row_keys_, drops)),
          forward{query_.data(), key_value_.data(), our_out_.data(), our_log_sum_exp_.data()},
          backward{grad_.data(),        query_.data(),          key_value_.data(),
                   log_sum_exp_.data(), our_grad_query_.data(), our_grad_key_value_.data()} {
        // A few large queries, so that some rows of the softmax are almost one-hot.
        for (int64_t i = 0; i < query_size_; ++i) {
            if (i / (heads * width) % 5 == 2) from_float(4 * to_float(query_[i]), query_[i]);
        }
        const auto query = floats_of(query_), key_value = floats_of(key_value_), grad = floats_of(grad_);
        BERTFAST_DISPATCH(attention(
            shape, AttentionForward<float>{query.data(), key_value.data(), out_.data(), log_sum_exp_.data()}));
        BERTFAST_DISPATCH(attention_backward(
            shape, AttentionBackward<float>{grad.data(), query.data(), key_value.data(), log_sum_exp_.data(),
                                            grad_query_.data(), grad_key_value_.data()}));
    }
    AttentionCase(const AttentionCase&) = delete;
    AttentionCase& operator=(const AttentionCase&) = delete;

    // Whether the results of the kernel under test are within tolerance.
    bool is_good() const {
        const double tolerance = sizeof(T) == 2 ? 4e-3 : 3e-5;  // in bfloat16 the probabilities are rounded too
        return near(our_log_sum_exp_, log_sum_exp_, 1e-6, "log_sum_exp") &&
               near(our_out_, out_, tolerance, "attention") &&
               near(our_grad_query_, grad_query_, tolerance, "gradient of the queries") &&
               near(our_grad_key_value_, grad_key_value_, tolerance, "gradient of keys and values");
    }

    // Whether no query has a gradient, as where each has one key, whose probability is 1.
    bool queries_have_no_gradient() const {
        return std::all_of(our_grad_query_.begin(), our_grad_query_.end(), [](T each) { return to_float(each) == 0; });
    }

  private:
    std::mt19937 random_;
    PackedSequences sequences_;
    int64_t tokens_, query_size_, key_size_;
    std::vector<T> query_, key_value_, grad_;
    std::vector<int64_t> row_keys_;
    std::vector<float> out_, log_sum_exp_, grad_query_, grad_key_value_;
    std::vector<T> our_out_, our_grad_query_, our_grad_key_value_;
    std::vector<float> our_log_sum_exp_;

  public:
    // The arguments of the kernel under test.
    const AttentionShape shape;
    const AttentionForward<T> forward;
    const AttentionBackward<T> backward;
};

}  // namespace bertfast
