#include "cpu/gelu.h"

#include "bindings/module.h"
#include "bindings/tensor.h"
#include "cpu/dispatch.h"

namespace bertfast::bindings {

namespace {

Tensor checked_x(py::handle object) {
    Tensor x(object, "x", {Dtype::float32, Dtype::bfloat16}, {ANY, ANY});
    if (x.place().cuda) throw std::runtime_error("bias_gelu has no CUDA kernel: call its plain-torch twin");
    return x;
}

Tensor like_x(py::handle object, const char* name, const Tensor& x) {
    Tensor tensor(object, name, {x.dtype()}, {x.size(0), x.size(1)});
    tensor.beside(x);
    return tensor;
}

Tensor per_column(py::handle object, const char* name, const Tensor& x) {
    Tensor tensor(object, name, {Dtype::float32}, {x.size(1)});
    tensor.beside(x);
    return tensor;
}

template <typename T>
void forward(const Tensor& x, const Tensor& bias, const Tensor& out) {
    const BiasGelu<T> call{x.data<T>(), bias.data<float>(), x.size(0), x.size(1), out.data<T>()};
    const py::gil_scoped_release unlocked;
    BERTFAST_DISPATCH(bias_gelu(call));
}

template <typename T>
void backward(const Tensor& grad, const Tensor& x, const Tensor& bias, const Tensor& grad_x, const Tensor& grad_bias) {
    const BiasGeluBackward<T> call{grad.data<T>(), x.data<T>(),      bias.data<float>(),     x.size(0),
                                   x.size(1),      grad_x.data<T>(), grad_bias.data<float>()};
    const py::gil_scoped_release unlocked;
    BERTFAST_DISPATCH(bias_gelu_backward(call));
}

void bias_gelu(py::handle x_, py::handle bias_, py::handle out_) {
    const Tensor x = checked_x(x_), bias = per_column(bias_, "bias", x), out = like_x(out_, "out", x);
    x.dtype() == Dtype::float32 ? forward<float>(x, bias, out) : forward<bfloat16>(x, bias, out);
}

void bias_gelu_backward(py::handle grad_, py::handle x_, py::handle bias_, py::handle grad_x_, py::handle grad_bias_) {
    const Tensor x = checked_x(x_), bias = per_column(bias_, "bias", x);
    const Tensor grad = like_x(grad_, "grad", x), grad_x = like_x(grad_x_, "grad_x", x);
    const Tensor grad_bias = per_column(grad_bias_, "grad_bias", x);
    x.dtype() == Dtype::float32 ? backward<float>(grad, x, bias, grad_x, grad_bias)
                                : backward<bfloat16>(grad, x, bias, grad_x, grad_bias);
}

}  // namespace

void bind_gelu(py::module_& module) {
    module.def("bias_gelu", &bias_gelu, py::arg("x"), py::arg("bias"), py::arg("out"));
    module.def("bias_gelu_backward", &bias_gelu_backward, py::arg("grad"), py::arg("x"), py::arg("bias"),
               py::arg("grad_x"), py::arg("grad_bias"));
}

}  // namespace bertfast::bindings
