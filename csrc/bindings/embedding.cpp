#include "bindings/module.h"
#include "bindings/run.h"
#include "bindings/shared_arguments.h"

namespace bertfast::bindings {

namespace {

// Ids and tables, checked, since an id beyond its table would read beyond the tensor. CUDA kernels check ids
// themselves.
struct Tables {
    Tensor input_ids, token_type_ids, position_ids, word, type, position;

    Tables(py::handle input_ids_, py::handle token_type_ids_, py::handle position_ids_, py::handle word_,
           py::handle type_, py::handle position_)
        : input_ids(input_ids_, "input_ids", {Dtype::int64}, {ANY}),
          token_type_ids(token_type_ids_, "token_type_ids", Dtype::int64, {input_ids.size(0)}, input_ids),
          position_ids(position_ids_, "position_ids", Dtype::int64, {input_ids.size(0)}, input_ids),
          word(word_, "word_weight", Dtype::float32, {ANY, ANY}, input_ids),
          type(type_, "type_weight", Dtype::float32, {ANY, word.size(1)}, input_ids),
          position(position_, "position_weight", Dtype::float32, {ANY, word.size(1)}, input_ids) {
        if (input_ids.device().cuda) return;
        check(input_ids, "input_ids", word.size(0));
        check(token_type_ids, "token_type_ids", type.size(0));
        check(position_ids, "position_ids", position.size(0));
    }

    static void check(const Tensor& ids, const char* name, int64_t entries) {
        for (int64_t i = 0; i < ids.size(0); ++i) {
            const int64_t id = ids.data<int64_t>()[i];
            if (id < 0 || id >= entries) {
                throw py::index_error(std::string(name) + " holds " + std::to_string(id) + ", but its table has " +
                                      std::to_string(entries) + " entries");
            }
        }
    }

    EmbeddingTables addresses() const {
        return {input_ids.data<int64_t>(),
                token_type_ids.data<int64_t>(),
                position_ids.data<int64_t>(),
                word.data<float>(),
                type.data<float>(),
                position.data<float>(),
                word.size(0),
                type.size(0),
                position.size(0),
                input_ids.size(0),
                word.size(1)};
    }
};

// Which tokens hold each word, on a CUDA device; None on a CPU. The contents are not checked.
struct ByWord {
    TokensByEntry addresses = {};

    ByWord(py::handle order, py::handle begin, int64_t tokens, const Tensor& words) {
        if (!words.device().cuda) return;
        addresses.order = Tensor(order, "word_order", Dtype::int64, {tokens}, words).data<const int64_t>();
        addresses.begin = Tensor(begin, "word_begin", Dtype::int64, {words.size(0) + 1}, words).data<const int64_t>();
    }
};

// Where the sequences begin, on a CUDA device; None on a CPU.
struct ByPosition {
    TokensByPosition addresses = {};

    ByPosition(py::handle cu_seqlens, const Tensor& words) {
        if (!words.device().cuda) return;
        const Tensor offsets(cu_seqlens, "cu_seqlens", Dtype::int32, {ANY}, words);
        if (offsets.size(0) < 1) throw py::value_error("cu_seqlens is empty");
        addresses = {offsets.data<const int32_t>(), offsets.size(0) - 1};
    }
};

void embedding_layer_norm(py::handle input_ids, py::handle token_type_ids, py::handle position_ids, py::handle word,
                          py::handle type, py::handle position, py::handle weight_, py::handle bias_, double eps,
                          py::handle row_keys_, double p, int64_t seed, int64_t place, py::handle out_,
                          py::handle moments_) {
    const Tables tables(input_ids, token_type_ids, position_ids, word, type, position);
    const int64_t tokens = tables.input_ids.size(0), hidden = tables.word.size(1);
    const Tensor weight(weight_, "weight", Dtype::float32, {hidden}, tables.word);
    const Tensor bias(bias_, "bias", Dtype::float32, {hidden}, tables.word);
    const Tensor row_keys(row_keys_, "row_keys", Dtype::int64, {tokens}, tables.word);
    const Tensor moments(moments_, "moments", Dtype::float32, {tokens, 2}, tables.word);
    const Tensor out(out_, "out", {Dtype::float32, Dtype::bfloat16}, {tokens, hidden});
    out.require_same_device(tables.word);
    check_no_overlap({&out, &moments}, {&tables.input_ids, &tables.token_type_ids, &tables.position_ids, &tables.word,
                                        &tables.type, &tables.position, &weight, &bias, &row_keys});
    const Dropout dropout = checked_dropout(p, seed, place);
    with_float_type(out, [&](auto type) {
        using T = decltype(type);
        const EmbeddingLayerNorm<T> call{tables.addresses(),      weight.data<float>(),     bias.data<float>(),
                                         static_cast<float>(eps), row_keys.data<int64_t>(), dropout,
                                         out.data<T>(),           moments.data<float>()};
        BERTFAST_RUN(out.device(), embedding_layer_norm(call), embedding_layer_norm(call, out.device().stream));
    });
}

void embedding_layer_norm_backward(py::handle grad_, py::handle input_ids, py::handle token_type_ids,
                                   py::handle position_ids, py::handle word, py::handle type, py::handle position,
                                   py::handle weight_, py::handle moments_, py::handle row_keys_, double p,
                                   int64_t seed, int64_t place, py::handle grad_sum_, py::handle grad_word_,
                                   py::handle grad_type_, py::handle grad_position_, py::handle grad_weight_,
                                   py::handle grad_bias_, py::handle word_order, py::handle word_begin,
                                   py::handle cu_seqlens_, py::handle partial_) {
    const Tables tables(input_ids, token_type_ids, position_ids, word, type, position);
    const Tensor& words = tables.word;
    const int64_t tokens = tables.input_ids.size(0), hidden = words.size(1);
    const Tensor grad(grad_, "grad", {Dtype::float32, Dtype::bfloat16}, {tokens, hidden});
    grad.require_same_device(words);
    const Tensor weight(weight_, "weight", Dtype::float32, {hidden}, words);
    const Tensor moments(moments_, "moments", Dtype::float32, {tokens, 2}, words);
    const Tensor row_keys(row_keys_, "row_keys", Dtype::int64, {tokens}, words);
    const Tensor grad_sum(grad_sum_, "grad_sum", Dtype::float32, {tokens, hidden}, words);
    const Tensor grad_word(grad_word_, "grad_word", Dtype::float32, {words.size(0), hidden}, words);
    const Tensor grad_type(grad_type_, "grad_type", Dtype::float32, {tables.type.size(0), hidden}, words);
    const Tensor grad_position(grad_position_, "grad_position", Dtype::float32, {tables.position.size(0), hidden},
                               words);
    const Tensor grad_weight(grad_weight_, "grad_weight", Dtype::float32, {hidden}, words);
    const Tensor grad_bias(grad_bias_, "grad_bias", Dtype::float32, {hidden}, words);
    check_no_overlap({&grad_sum, &grad_word, &grad_type, &grad_position, &grad_weight, &grad_bias},
                     {&grad, &tables.input_ids, &tables.token_type_ids, &tables.position_ids, &tables.word,
                      &tables.type, &tables.position, &weight, &moments, &row_keys});
    const ByWord by_word(word_order, word_begin, tokens, words);
    const ByPosition by_position(cu_seqlens_, words);
    const PartialSums partial(partial_, 2 + tables.type.size(0), words,
                              {&grad, &tables.input_ids, &tables.token_type_ids, &tables.position_ids, &tables.word,
                               &tables.type, &tables.position, &weight, &moments, &row_keys, &grad_sum, &grad_word,
                               &grad_type, &grad_position, &grad_weight, &grad_bias});
    const Dropout dropout = checked_dropout(p, seed, place);
    with_float_type(grad, [&](auto type) {
        using T = decltype(type);
        const EmbeddingLayerNormBackward<T> call{grad.data<T>(),
                                                 tables.addresses(),
                                                 weight.data<float>(),
                                                 moments.data<float>(),
                                                 row_keys.data<int64_t>(),
                                                 dropout,
                                                 grad_sum.data<float>(),
                                                 grad_word.data<float>(),
                                                 grad_type.data<float>(),
                                                 grad_position.data<float>(),
                                                 grad_weight.data<float>(),
                                                 grad_bias.data<float>()};
        BERTFAST_RUN(grad.device(), embedding_layer_norm_backward(call),
                     embedding_layer_norm_backward(call, by_word.addresses, by_position.addresses, partial.data,
                                                   partial.slices, grad.device().stream));
    });
}

}  // namespace

void bind_embedding(py::module_& module) {
    module.def("embedding_layer_norm", &embedding_layer_norm, py::arg("input_ids"), py::arg("token_type_ids"),
               py::arg("position_ids"), py::arg("word_weight"), py::arg("type_weight"), py::arg("position_weight"),
               py::arg("weight"), py::arg("bias"), py::arg("eps"), py::arg("row_keys"), py::arg("p"), py::arg("seed"),
               py::arg("place"), py::arg("out"), py::arg("moments"));
    module.def("embedding_layer_norm_backward", &embedding_layer_norm_backward, py::arg("grad"), py::arg("input_ids"),
               py::arg("token_type_ids"), py::arg("position_ids"), py::arg("word_weight"), py::arg("type_weight"),
               py::arg("position_weight"), py::arg("weight"), py::arg("moments"), py::arg("row_keys"), py::arg("p"),
               py::arg("seed"), py::arg("place"), py::arg("grad_sum"), py::arg("grad_word"), py::arg("grad_type"),
               py::arg("grad_position"), py::arg("grad_weight"), py::arg("grad_bias"), py::arg("word_order"),
               py::arg("word_begin"), py::arg("cu_seqlens"), py::arg("partial"));
}

}  // namespace bertfast::bindings
