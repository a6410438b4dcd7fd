// A bias that what the kernel reads still lacks, since on a CPU the product before it would have to be written over to
// add it; None for none, as on a GPU, whose products add it for nothing.
#pragma once

#include <optional>

#include "bindings/tensor.h"

namespace bertfast::bindings {

class LateBias {
  public:
    // (columns,) float32 beside `neighbour`; apart from `written`.
    LateBias(py::handle object, const char* name, int64_t columns, const Tensor& neighbour,
             const std::vector<const Tensor*>& written) {
        if (object.is_none()) return;
        bias_.emplace(object, name, Dtype::float32, std::vector<int64_t>{columns}, neighbour);
        if (neighbour.place().cuda) throw py::value_error(std::string(name) + " is for CPUs: on a GPU it must be None");
        check_apart(written, {&*bias_});
    }

    const float* data() const { return bias_ ? bias_->data<float>() : nullptr; }

  private:
    std::optional<Tensor> bias_;
};

}  // namespace bertfast::bindings
