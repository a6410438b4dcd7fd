#include <algorithm>

#include "bindings/module.h"
#include "bindings/run.h"
#include "bindings/shared_arguments.h"

namespace bertfast::bindings {

namespace {

// The sequences' offsets and row keys, checked, since a wrong offset would read beyond the tensors.
struct Sequences {
    Tensor cu_seqlens_q, cu_seqlens_k, row_keys;

    Sequences(const Tensor& query, py::handle cu_seqlens_q_, py::handle cu_seqlens_k_, py::handle row_keys_)
        : cu_seqlens_q(cu_seqlens_q_, "cu_seqlens_q", Dtype::int32, {ANY}, query),
          cu_seqlens_k(cu_seqlens_k_, "cu_seqlens_k", Dtype::int32, cu_seqlens_q.shape(), query),
          row_keys(row_keys_, "row_keys", Dtype::int64, {query.size(0)}, query) {}

    AttentionShape shape(const Tensor& query, const Tensor& key_value, int64_t max_seqlen, double p, int64_t seed,
                         int64_t site) const {
        const int64_t batch = cu_seqlens_q.size(0) - 1, heads = query.size(1);
        const int32_t *q = cu_seqlens_q.data<int32_t>(), *k = cu_seqlens_k.data<int32_t>();
        if (batch < 0) throw py::value_error("cu_seqlens must hold at least one offset");
        if (heads > 256) throw py::value_error("attention takes at most 256 heads");
        if (query.size(2) == 0)
            throw py::value_error("attention's heads must have a width of at least 1");  // 1 / sqrt(0)
        if (site < 0 || site >= 1 << 16) throw py::value_error("a dropout's site must be in [0, 65536)");
        const Dropout dropout = checked_dropout(p, seed, 256 * site);
        const int64_t longest =
            query.device().cuda ? max_seqlen : longest_of(q, k, batch, query, key_value, max_seqlen);
        return {batch, heads, query.size(2), q, k, longest, row_keys.data<int64_t>(), dropout};
    }

    // Checks the offsets and returns the longest sequence's length. Offsets on a CUDA device are not checked.
    static int64_t longest_of(const int32_t* q, const int32_t* k, int64_t batch, const Tensor& query,
                              const Tensor& key_value, int64_t max_seqlen) {
        if (q[0] != 0 || k[0] != 0 || q[batch] != query.size(0) || k[batch] != key_value.size(0)) {
            throw py::value_error("cu_seqlens must begin at 0 and end at the number of tokens");
        }
        int64_t longest = 0;
        for (int64_t b = 0; b < batch; ++b) {
            const int64_t queries = int64_t{q[b + 1]} - q[b], keys = int64_t{k[b + 1]} - k[b];
            if (queries < 0 || keys < 0 || queries > max_seqlen || keys > max_seqlen || (queries > 0 && keys == 0)) {
                throw py::value_error("sequence " + std::to_string(b) + " has " + std::to_string(queries) +
                                      " queries and " + std::to_string(keys) + " keys; max_seqlen is " +
                                      std::to_string(max_seqlen));
            }
            longest = std::max({longest, queries, keys});
        }
        return longest;
    }
};

// The biases that the kernel adds to queries, keys and values. Sets them in `shape`.
struct Biases {
    DeferredBias query, key_value;

    Biases(py::handle query_, py::handle key_value_, const Tensor& queries, const std::vector<const Tensor*>& written,
           AttentionShape& shape)
        : query(query_, "query_bias", shape.heads * shape.head_dim, queries, written),
          key_value(key_value_, "key_value_bias", 2 * shape.heads * shape.head_dim, queries, written) {
        shape.query_bias = query.data();
        shape.key_value_bias = key_value.data();
    }
};

Tensor checked_query(py::handle query) {
    return {query, "query", {Dtype::float32, Dtype::bfloat16}, {ANY, ANY, ANY}};
}

void attention(py::handle query_, py::handle key_value_, py::handle cu_seqlens_q, py::handle cu_seqlens_k,
               int64_t max_seqlen, py::handle row_keys, double p, int64_t seed, int64_t site, py::handle out_,
               py::handle log_sum_exp_, py::handle query_bias, py::handle key_value_bias) {
    const Tensor query = checked_query(query_);
    const Tensor key_value(key_value_, "key_value", query.dtype(), {ANY, 2, query.size(1), query.size(2)}, query);
    const Tensor out(out_, "out", query.dtype(), query.shape(), query);
    const Tensor log_sum_exp(log_sum_exp_, "log_sum_exp", Dtype::float32, {query.size(0), query.size(1)}, query);
    const Sequences sequences(query, cu_seqlens_q, cu_seqlens_k, row_keys);
    check_no_overlap({&out, &log_sum_exp},
                     {&query, &key_value, &sequences.cu_seqlens_q, &sequences.cu_seqlens_k, &sequences.row_keys});
    AttentionShape shape = sequences.shape(query, key_value, max_seqlen, p, seed, site);
    const Biases biases(query_bias, key_value_bias, query, {&out, &log_sum_exp}, shape);
    with_float_type(query, [&](auto type) {
        using T = decltype(type);
        const AttentionForward<T> tensors{query.data<T>(), key_value.data<T>(), out.data<T>(),
                                          log_sum_exp.data<float>()};
        BERTFAST_RUN(query.device(), attention(shape, tensors), attention(shape, tensors, query.device().stream));
    });
}

void attention_backward(py::handle grad_, py::handle query_, py::handle key_value_, py::handle log_sum_exp_,
                        py::handle cu_seqlens_q, py::handle cu_seqlens_k, int64_t max_seqlen, py::handle row_keys,
                        double p, int64_t seed, int64_t site, py::handle grad_query_, py::handle grad_key_value_,
                        py::handle query_bias, py::handle key_value_bias) {
    const Tensor query = checked_query(query_);
    const Tensor key_value(key_value_, "key_value", query.dtype(), {ANY, 2, query.size(1), query.size(2)}, query);
    const Tensor log_sum_exp(log_sum_exp_, "log_sum_exp", Dtype::float32, {query.size(0), query.size(1)}, query);
    const Tensor grad(grad_, "grad", query.dtype(), query.shape(), query);
    const Tensor grad_query(grad_query_, "grad_query", query.dtype(), query.shape(), query);
    const Tensor grad_key_value(grad_key_value_, "grad_key_value", query.dtype(), key_value.shape(), query);
    const Sequences sequences(query, cu_seqlens_q, cu_seqlens_k, row_keys);
    check_no_overlap({&grad_query, &grad_key_value}, {&grad, &query, &key_value, &log_sum_exp, &sequences.cu_seqlens_q,
                                                      &sequences.cu_seqlens_k, &sequences.row_keys});
    AttentionShape shape = sequences.shape(query, key_value, max_seqlen, p, seed, site);
    const Biases biases(query_bias, key_value_bias, query, {&grad_query, &grad_key_value}, shape);
    with_float_type(query, [&](auto type) {
        using T = decltype(type);
        const AttentionBackward<T> tensors{grad.data<T>(),       query.data<T>(),
                                           key_value.data<T>(),  log_sum_exp.data<float>(),
                                           grad_query.data<T>(), grad_key_value.data<T>()};
        BERTFAST_RUN(query.device(), attention_backward(shape, tensors),
                     attention_backward(shape, tensors, query.device().stream));
    });
}

}  // namespace

void bind_attention(py::module_& module) {
    module.def("attention", &attention, py::arg("query"), py::arg("key_value"), py::arg("cu_seqlens_q"),
               py::arg("cu_seqlens_k"), py::arg("max_seqlen"), py::arg("row_keys"), py::arg("p"), py::arg("seed"),
               py::arg("site"), py::arg("out"), py::arg("log_sum_exp"), py::arg("query_bias") = py::none(),
               py::arg("key_value_bias") = py::none());
    module.def("attention_backward", &attention_backward, py::arg("grad"), py::arg("query"), py::arg("key_value"),
               py::arg("log_sum_exp"), py::arg("cu_seqlens_q"), py::arg("cu_seqlens_k"), py::arg("max_seqlen"),
               py::arg("row_keys"), py::arg("p"), py::arg("seed"), py::arg("site"), py::arg("grad_query"),
               py::arg("grad_key_value"), py::arg("query_bias") = py::none(), py::arg("key_value_bias") = py::none());
}

}  // namespace bertfast::bindings
