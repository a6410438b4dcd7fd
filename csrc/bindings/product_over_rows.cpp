#include "core/product_over_rows.h"

#include "bindings/module.h"
#include "bindings/run.h"
#include "bindings/shared_arguments.h"

namespace bertfast::bindings {

namespace {

void product_over_rows(py::handle left_, py::handle right_, py::handle to_, bool add) {
    const Tensor left(left_, "left", {Dtype::float32, Dtype::bfloat16}, {ANY, ANY});
    const Tensor right(right_, "right", left.dtype(), {left.size(0), ANY}, left);
    const Tensor to(to_, "to", Dtype::float32, {left.size(1), right.size(1)}, left);
    if (left.device().cuda) throw py::value_error("product_over_rows runs on CPUs only");
    check_no_overlap({&to}, {&left, &right});
    const py::gil_scoped_release unlocked;
    with_float_type(left, [&](auto type) {
        using T = decltype(type);
        const ProductOverRows<T> call{left.data<T>(), right.data<T>(),  left.size(0), left.size(1),
                                      right.size(1),  to.data<float>(), add};
        BERTFAST_DISPATCH(product_over_rows(call));
    });
}

}  // namespace

void bind_product_over_rows(py::module_& module) {
    module.def("product_over_rows", &product_over_rows, py::arg("left"), py::arg("right"), py::arg("to"),
               py::arg("add"));
}

}  // namespace bertfast::bindings
