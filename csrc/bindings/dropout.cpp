#include "bindings/module.h"
#include "bindings/run.h"
#include "bindings/shared_arguments.h"

namespace bertfast::bindings {

namespace {

template <typename T>
void run(const Tensor& x, const Tensor& row_keys, const Dropout& rule, const Tensor& out) {
    BERTFAST_RUN(
        x.place(), dropout(x.data<T>(), row_keys.data<int64_t>(), x.size(0), x.size(1), rule, out.data<T>()),
        dropout(x.data<T>(), row_keys.data<int64_t>(), x.size(0), x.size(1), rule, out.data<T>(), x.place().stream));
}

void dropout(py::handle x_, py::handle row_keys_, double p, int64_t seed, int64_t place, py::handle out_) {
    const Tensor x = checked_x(x_);
    const Tensor row_keys(row_keys_, "row_keys", {Dtype::int64}, {x.size(0)});
    const Tensor out(out_, "out", {x.dtype()}, {x.size(0), x.size(1)});
    row_keys.beside(x);
    out.beside(x);
    check_apart({&out}, {&x, &row_keys});
    const Dropout rule = checked_dropout(p, seed, place);
    x.dtype() == Dtype::float32 ? run<float>(x, row_keys, rule, out) : run<bfloat16>(x, row_keys, rule, out);
}

}  // namespace

void bind_dropout(py::module_& module) {
    module.def("dropout", &dropout, py::arg("x"), py::arg("row_keys"), py::arg("p"), py::arg("seed"), py::arg("place"),
               py::arg("out"));
}

}  // namespace bertfast::bindings
