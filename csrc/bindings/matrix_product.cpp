#include "core/matrix_product.h"

#include "bindings/module.h"
#include "bindings/run.h"
#include "bindings/shared_arguments.h"

namespace bertfast::bindings {

namespace {

template <typename T, typename To>
void multiply(const Tensor& left, bool left_transposed, const Tensor& right, bool right_transposed, const Tensor& to,
              bool add) {
    const MatrixProduct<T, To> call{{left.data<T>(), left_transposed},
                                    {right.data<T>(), right_transposed},
                                    to.size(0),
                                    left.size(left_transposed ? 0 : 1),
                                    to.size(1),
                                    to.data<To>(),
                                    add};
    BERTFAST_DISPATCH(matrix_product(call));
}

void matrix_product(py::handle left_, bool left_transposed, py::handle right_, bool right_transposed, py::handle to_,
                    bool add) {
    const Tensor left(left_, "left", {Dtype::float32, Dtype::bfloat16}, {ANY, ANY});
    const int64_t rows = left.size(left_transposed ? 1 : 0), depth = left.size(left_transposed ? 0 : 1);
    const auto stored = [](bool transposed, int64_t one, int64_t other) {
        return transposed ? std::vector<int64_t>{other, one} : std::vector<int64_t>{one, other};
    };
    const Tensor right(right_, "right", left.dtype(), stored(right_transposed, depth, ANY), left);
    const Tensor to(to_, "to", {Dtype::float32, left.dtype()}, {rows, right.size(right_transposed ? 0 : 1)});
    to.require_same_device(left);
    if (left.device().cuda) throw py::value_error("matrix_product runs on CPUs only");
    check_no_overlap({&to}, {&left, &right});
    const py::gil_scoped_release unlocked;
    if (left.dtype() == Dtype::float32) {
        multiply<float, float>(left, left_transposed, right, right_transposed, to, add);
    } else if (to.dtype() == Dtype::float32) {
        multiply<bfloat16, float>(left, left_transposed, right, right_transposed, to, add);
    } else {
        multiply<bfloat16, bfloat16>(left, left_transposed, right, right_transposed, to, add);
    }
}

}  // namespace

void bind_matrix_product(py::module_& module) {
    module.def("matrix_product", &matrix_product, py::arg("left"), py::arg("left_transposed"), py::arg("right"),
               py::arg("right_transposed"), py::arg("to"), py::arg("add"));
}

}  // namespace bertfast::bindings
