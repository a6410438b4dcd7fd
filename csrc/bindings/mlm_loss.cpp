#include <string>

#include "bindings/module.h"
#include "bindings/run.h"
#include "bindings/shared_arguments.h"

namespace bertfast::bindings {

namespace {

void check_labels(const int64_t* labels, int64_t rows, int64_t vocab_size) {
    for (int64_t row = 0; row < rows; ++row) {
        if (labels[row] < 0 || labels[row] >= vocab_size) {
            throw py::value_error("labels[" + std::to_string(row) + "] is " + std::to_string(labels[row]) +
                                  ", outside [0, vocab_size = " + std::to_string(vocab_size) + ")");
        }
    }
}

void mlm_loss(py::handle logits_, py::handle bias_, py::handle labels_, py::handle weights_, int64_t vocab_size,
              py::handle losses_, py::handle bias_gradient_) {
    const Tensor logits(logits_, "logits", {Dtype::float32, Dtype::bfloat16}, {ANY, ANY});
    const int64_t rows = logits.size(0), columns = logits.size(1);
    const Tensor bias(bias_, "bias", Dtype::float32, {columns}, logits);
    const Tensor labels(labels_, "labels", Dtype::int64, {rows}, logits);
    const Tensor weights(weights_, "weights", Dtype::float32, {rows}, logits);
    const Tensor losses(losses_, "losses", Dtype::float32, {rows}, logits);
    check_no_overlap({&logits, &losses}, {&bias, &labels, &weights});
    float* bias_gradient = nullptr;
    int64_t slices = rows;
    if (!bias_gradient_.is_none()) {
        const Tensor checked(bias_gradient_, "bias_gradient", Dtype::float32, {ANY, columns}, logits);
        bias_gradient = checked.data<float>();
        check_no_overlap({&checked}, {&logits, &bias, &labels, &weights, &losses});
        slices = checked.size(0);
        if (slices < 1) throw py::value_error("bias_gradient must have at least one slice");
    }
    if (columns % 8 != 0) throw py::value_error("logits must have a multiple of 8 columns");
    if (vocab_size < 1 || vocab_size > columns) throw py::value_error("vocab_size must be in [1, columns of logits]");
    static_assert(MLM_LOSS_ALIGNMENT == 16);
    check_aligned({&logits, &bias});
    if (!logits.device().cuda) check_labels(labels.data<int64_t>(), rows, vocab_size);
    with_float_type(logits, [&](auto type) {
        using T = decltype(type);
        const MlmLossChunk<T> chunk{
            logits.data<T>(), bias.data<float>(), labels.data<int64_t>(), weights.data<float>(), rows,
            columns,          vocab_size,         losses.data<float>(),   bias_gradient,         slices};
        BERTFAST_RUN(logits.device(), mlm_loss(chunk), mlm_loss(chunk, logits.device().stream));
    });
}

}  // namespace

void bind_mlm_loss(py::module_& module) {
    module.def("mlm_loss", &mlm_loss, py::arg("logits"), py::arg("bias"), py::arg("labels"), py::arg("weights"),
               py::arg("vocab_size"), py::arg("losses"), py::arg("bias_gradient"));
}

}  // namespace bertfast::bindings
