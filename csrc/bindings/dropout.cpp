#include "bindings/module.h"
#include "bindings/run.h"
#include "bindings/shared_arguments.h"

namespace bertfast::bindings {

namespace {

void dropout(py::handle x_, py::handle row_keys_, double p, int64_t seed, int64_t place, py::handle out_) {
    const Tensor x = checked_x(x_);
    const Tensor row_keys(row_keys_, "row_keys", Dtype::int64, {x.size(0)}, x);
    const Tensor out(out_, "out", x.dtype(), x.shape(), x);
    check_no_overlap({&out}, {&x, &row_keys});
    const Dropout rule = checked_dropout(p, seed, place);
    const int64_t* const keys = row_keys.data<int64_t>();
    const int64_t rows = x.size(0), columns = x.size(1);
    with_float_type(x, [&](auto type) {
        using T = decltype(type);
        BERTFAST_RUN(x.device(), dropout(x.data<T>(), keys, rows, columns, rule, out.data<T>()),
                     dropout(x.data<T>(), keys, rows, columns, rule, out.data<T>(), x.device().stream));
    });
}

}  // namespace

void bind_dropout(py::module_& module) {
    module.def("dropout", &dropout, py::arg("x"), py::arg("row_keys"), py::arg("p"), py::arg("seed"), py::arg("place"),
               py::arg("out"));
}

}  // namespace bertfast::bindings
