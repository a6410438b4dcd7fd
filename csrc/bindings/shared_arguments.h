// Arguments that several ops take, checked.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>

#include "bindings/tensor.h"
#include "core/dropout.h"

namespace bertfast::bindings {

// Calls body(T()), where T is the type of the tensor's elements: float or bfloat16.
template <typename Body>
void with_float_type(const Tensor& tensor, const Body& body) {
    tensor.dtype() == Dtype::float32 ? body(float()) : body(bfloat16());
}

// Raises ValueError for a tensor that does not begin at a multiple of 16 bytes.
inline void check_aligned(std::initializer_list<const Tensor*> tensors) {
    for (const Tensor* each : tensors) {
        if (reinterpret_cast<uintptr_t>(each->data<const void>()) % 16 != 0) {
            throw py::value_error(each->name() + " must be aligned to 16 bytes");
        }
    }
}

// Activations, (rows, columns), in float32 or bfloat16.
inline Tensor checked_x(py::handle object) {
    return {object, "x", {Dtype::float32, Dtype::bfloat16}, {ANY, ANY}};
}

// Raises ValueError unless 0 <= p < 1 and the place, 256 times a site, fits the counter's 24 bits.
inline Dropout checked_dropout(double p, int64_t seed, int64_t place) {
    if (!(p >= 0.0 && p <= 1.0 - 1.0 / 4294967296.0)) throw py::value_error("p must be in [0, 1)");
    if (place < 0 || place >= 1 << 24) throw py::value_error("a dropout's site must be in [0, 65536)");
    return make_dropout(p, static_cast<uint64_t>(seed), static_cast<uint32_t>(place));
}

// The bias of the product before a kernel, which the kernel adds as it reads the product: on a CPU torch would first
// write it over the whole result. None where the product has added it, as on a GPU, where that is free.
class DeferredBias {
  public:
    // (columns,) float32, on the device of `other`, without overlap with `written`.
    DeferredBias(py::handle object, const char* name, int64_t columns, const Tensor& other,
                 const std::vector<const Tensor*>& written) {
        if (object.is_none()) return;
        bias_.emplace(object, name, Dtype::float32, std::vector<int64_t>{columns}, other);
        if (other.device().cuda) throw py::value_error(std::string(name) + " must be None on a GPU");
        check_no_overlap(written, {&*bias_});
    }

    const float* data() const { return bias_ ? bias_->data<float>() : nullptr; }

  private:
    std::optional<Tensor> bias_;
};

// The working memory of sums over rows on a CUDA device, since kernels allocate nothing there. None on a CPU.
struct PartialSums {
    float* data = nullptr;
    int64_t slices = 0;

    // (slices, sums, columns of x) float32, on the device of x, without overlap with `others`.
    PartialSums(py::handle object, int64_t sums, const Tensor& x, std::initializer_list<const Tensor*> others) {
        if (!x.device().cuda) return;
        const Tensor partial(object, "partial", Dtype::float32, {ANY, sums, x.size(1)}, x);
        check_no_overlap({&partial}, others);
        if (partial.size(0) < 1) throw py::value_error("partial must have at least one slice");
        data = partial.data<float>();
        slices = partial.size(0);
    }
};

}  // namespace bertfast::bindings
