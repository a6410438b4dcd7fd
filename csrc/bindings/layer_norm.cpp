#include "bindings/module.h"
#include "bindings/run.h"
#include "bindings/shared_arguments.h"

namespace bertfast::bindings {

namespace {

void dropout_add_layer_norm(py::handle x_, py::handle residual_, py::handle weight_, py::handle bias_, double eps,
                            py::handle row_keys_, double p, int64_t seed, int64_t place, py::handle out_,
                            py::handle moments_, py::handle x_bias_) {
    const Tensor x = checked_x(x_);
    const Tensor residual(residual_, "residual", x.dtype(), x.shape(), x), out(out_, "out", x.dtype(), x.shape(), x);
    const Tensor weight(weight_, "weight", Dtype::float32, {x.size(1)}, x);
    const Tensor bias(bias_, "bias", Dtype::float32, {x.size(1)}, x);
    const Tensor row_keys(row_keys_, "row_keys", Dtype::int64, {x.size(0)}, x);
    const Tensor moments(moments_, "moments", Dtype::float32, {x.size(0), 2}, x);
    check_no_overlap({&out, &moments}, {&x, &residual, &weight, &bias, &row_keys});
    const DeferredBias x_bias(x_bias_, "x_bias", x.size(1), x, {&out, &moments});
    const Dropout dropout = checked_dropout(p, seed, place);
    with_float_type(x, [&](auto type) {
        using T = decltype(type);
        const DropoutAddLayerNorm<T> call{x.data<T>(),
                                          residual.data<T>(),
                                          weight.data<float>(),
                                          bias.data<float>(),
                                          static_cast<float>(eps),
                                          row_keys.data<int64_t>(),
                                          dropout,
                                          x.size(0),
                                          x.size(1),
                                          out.data<T>(),
                                          moments.data<float>(),
                                          x_bias.data()};
        BERTFAST_RUN(x.device(), dropout_add_layer_norm(call), dropout_add_layer_norm(call, x.device().stream));
    });
}

void dropout_add_layer_norm_backward(py::handle grad_, py::handle x_, py::handle residual_, py::handle weight_,
                                     py::handle moments_, py::handle row_keys_, double p, int64_t seed, int64_t place,
                                     py::handle grad_x_, py::handle grad_residual_, py::handle grad_weight_,
                                     py::handle grad_bias_, py::handle partial_, py::handle x_bias_) {
    const Tensor x = checked_x(x_);
    const Tensor residual(residual_, "residual", x.dtype(), x.shape(), x);
    const Tensor grad(grad_, "grad", x.dtype(), x.shape(), x);
    const Tensor weight(weight_, "weight", Dtype::float32, {x.size(1)}, x);
    const Tensor row_keys(row_keys_, "row_keys", Dtype::int64, {x.size(0)}, x);
    const Tensor moments(moments_, "moments", Dtype::float32, {x.size(0), 2}, x);
    const Tensor grad_x(grad_x_, "grad_x", x.dtype(), x.shape(), x);
    const Tensor grad_residual(grad_residual_, "grad_residual", x.dtype(), x.shape(), x);
    const Tensor grad_weight(grad_weight_, "grad_weight", Dtype::float32, {x.size(1)}, x);
    const Tensor grad_bias(grad_bias_, "grad_bias", Dtype::float32, {x.size(1)}, x);
    check_no_overlap({&grad_x, &grad_residual, &grad_weight, &grad_bias},
                     {&grad, &x, &residual, &weight, &moments, &row_keys});
    const PartialSums partial(
        partial_, 2, x,
        {&grad, &x, &residual, &weight, &moments, &row_keys, &grad_x, &grad_residual, &grad_weight, &grad_bias});
    const DeferredBias x_bias(x_bias_, "x_bias", x.size(1), x, {&grad_x, &grad_residual, &grad_weight, &grad_bias});
    const Dropout dropout = checked_dropout(p, seed, place);
    with_float_type(x, [&](auto type) {
        using T = decltype(type);
        const DropoutAddLayerNormBackward<T> call{grad.data<T>(),
                                                  x.data<T>(),
                                                  residual.data<T>(),
                                                  weight.data<float>(),
                                                  moments.data<float>(),
                                                  row_keys.data<int64_t>(),
                                                  dropout,
                                                  x.size(0),
                                                  x.size(1),
                                                  grad_x.data<T>(),
                                                  grad_residual.data<T>(),
                                                  grad_weight.data<float>(),
                                                  grad_bias.data<float>(),
                                                  x_bias.data()};
        BERTFAST_RUN(x.device(), dropout_add_layer_norm_backward(call),
                     dropout_add_layer_norm_backward(call, partial.data, partial.slices, x.device().stream));
    });
}

}  // namespace

void bind_layer_norm(py::module_& module) {
    module.def("dropout_add_layer_norm", &dropout_add_layer_norm, py::arg("x"), py::arg("residual"), py::arg("weight"),
               py::arg("bias"), py::arg("eps"), py::arg("row_keys"), py::arg("p"), py::arg("seed"), py::arg("place"),
               py::arg("out"), py::arg("moments"), py::arg("x_bias") = py::none());
    module.def("dropout_add_layer_norm_backward", &dropout_add_layer_norm_backward, py::arg("grad"), py::arg("x"),
               py::arg("residual"), py::arg("weight"), py::arg("moments"), py::arg("row_keys"), py::arg("p"),
               py::arg("seed"), py::arg("place"), py::arg("grad_x"), py::arg("grad_residual"), py::arg("grad_weight"),
               py::arg("grad_bias"), py::arg("partial"), py::arg("x_bias") = py::none());
}

}  // namespace bertfast::bindings
