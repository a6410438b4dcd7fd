#include "bindings/module.h"
#include "bindings/run.h"
#include "bindings/shared_arguments.h"

namespace bertfast::bindings {

namespace {

void column_sums(py::handle x_, py::handle sums_) {
    const Tensor x = checked_x(x_);
    const Tensor sums(sums_, "sums", Dtype::float32, {x.size(1)}, x);
    if (x.device().cuda) throw py::value_error("column_sums runs on CPUs only");
    check_no_overlap({&sums}, {&x});
    const int64_t rows = x.size(0), columns = x.size(1);
    const py::gil_scoped_release unlocked;
    with_float_type(x, [&](auto type) {
        BERTFAST_DISPATCH(column_sums(x.data<decltype(type)>(), rows, columns, sums.data<float>()));
    });
}

}  // namespace

void bind_column_sums(py::module_& module) {
    module.def("column_sums", &column_sums, py::arg("x"), py::arg("sums"));
}

}  // namespace bertfast::bindings
