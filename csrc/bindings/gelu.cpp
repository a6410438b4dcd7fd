#include "bindings/module.h"
#include "bindings/run.h"
#include "bindings/shared_arguments.h"

namespace bertfast::bindings {

namespace {

void bias_gelu(py::handle x_, py::handle bias_, py::handle out_) {
    const Tensor x = checked_x(x_);
    const Tensor bias(bias_, "bias", Dtype::float32, {x.size(1)}, x);
    const Tensor out(out_, "out", x.dtype(), x.shape(), x);
    check_no_overlap({&out}, {&x, &bias});
    with_float_type(x, [&](auto type) {
        using T = decltype(type);
        const BiasGelu<T> call{x.data<T>(), bias.data<float>(), x.size(0), x.size(1), out.data<T>()};
        BERTFAST_RUN(x.device(), bias_gelu(call), bias_gelu(call, x.device().stream));
    });
}

void bias_gelu_backward(py::handle grad_, py::handle x_, py::handle bias_, py::handle grad_x_, py::handle grad_bias_,
                        py::handle partial_) {
    const Tensor x = checked_x(x_);
    const Tensor bias(bias_, "bias", Dtype::float32, {x.size(1)}, x);
    const Tensor grad(grad_, "grad", x.dtype(), x.shape(), x);
    const Tensor grad_x(grad_x_, "grad_x", x.dtype(), x.shape(), x);
    const Tensor grad_bias(grad_bias_, "grad_bias", Dtype::float32, {x.size(1)}, x);
    check_no_overlap({&grad_x, &grad_bias}, {&grad, &x, &bias});
    const PartialSums partial(partial_, 1, x, {&grad, &x, &bias, &grad_x, &grad_bias});
    with_float_type(x, [&](auto type) {
        using T = decltype(type);
        const BiasGeluBackward<T> call{grad.data<T>(), x.data<T>(),      bias.data<float>(),     x.size(0),
                                       x.size(1),      grad_x.data<T>(), grad_bias.data<float>()};
        BERTFAST_RUN(x.device(), bias_gelu_backward(call),
                     bias_gelu_backward(call, partial.data, partial.slices, x.device().stream));
    });
}

}  // namespace

void bind_gelu(py::module_& module) {
    module.def("bias_gelu", &bias_gelu, py::arg("x"), py::arg("bias"), py::arg("out"));
    module.def("bias_gelu_backward", &bias_gelu_backward, py::arg("grad"), py::arg("x"), py::arg("bias"),
               py::arg("grad_x"), py::arg("grad_bias"), py::arg("partial"));
}

}  // namespace bertfast::bindings
