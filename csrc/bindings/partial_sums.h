// The working memory of sums over rows on a CUDA device, where nothing is allocated here; None on a CPU.
#pragma once

#include "bindings/tensor.h"

namespace bertfast::bindings {

struct PartialSums {
    float* data = nullptr;
    int64_t slices = 0;

    // (slices, sums, columns of x), float32, beside x; apart from `others`.
    PartialSums(py::handle object, int64_t sums, const Tensor& x, std::initializer_list<const Tensor*> others) {
        if (!x.place().cuda) return;
        const Tensor partial(object, "partial", Dtype::float32, {ANY, sums, x.size(1)}, x);
        check_apart({&partial}, others);
        if (partial.size(0) < 1) throw py::value_error("partial must have at least one slice");
        data = partial.data<float>();
        slices = partial.size(0);
    }
};

}  // namespace bertfast::bindings
