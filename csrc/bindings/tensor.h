// A checked view of a torch tensor, without torch's headers: type, shape, contiguity and device are read through the
// tensor's Python attributes, so that a wrong argument is a Python exception that names it, never a crash.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

namespace bertfast::bindings {

namespace py = pybind11;

// The CPU, or CUDA device `index` with the caller's current stream.
struct Device {
    bool cuda = false;
    int index = 0;
    void* stream = nullptr;

    bool operator==(const Device& other) const { return cuda == other.cuda && index == other.index; }
};

// The dtypes that kernels take.
enum class Dtype { float32, bfloat16, int32, int64, uint16, uint32, uint8 };

// Matches any extent.
constexpr int64_t ANY = -1;

class Tensor {
  public:
    // Raises TypeError or ValueError, naming `name`, unless `object` is a contiguous tensor of one of `dtypes`, whose
    // storage holds all of it.
    Tensor(py::handle object, const char* name, const std::vector<Dtype>& dtypes);
    // The same, and ValueError unless it has `shape` (ANY matches any extent).
    Tensor(py::handle object, const char* name, const std::vector<Dtype>& dtypes, const std::vector<int64_t>& shape);
    // The same, and ValueError unless it is on the device of `other`.
    Tensor(py::handle object, const char* name, Dtype dtype, const std::vector<int64_t>& shape, const Tensor& other)
        : Tensor(object, name, {dtype}, shape) {
        require_same_device(other);
    }

    template <typename T>
    T* data() const {
        return static_cast<T*>(data_);
    }
    int64_t size(int dimension) const { return shape_[dimension]; }
    int64_t elements() const { return elements_; }
    const std::vector<int64_t>& shape() const { return shape_; }
    Dtype dtype() const { return dtype_; }
    const Device& device() const { return device_; }
    // Raises ValueError unless this tensor is on the device of `other`.
    const Tensor& require_same_device(const Tensor& other) const;
    // Its first byte and the end of its memory: the same address if it is empty.
    const char* begin() const { return data<const char>(); }
    const char* end() const { return begin() + bytes_; }
    const std::string& name() const { return name_; }

  private:
    std::string name_;
    void* data_ = nullptr;
    int64_t elements_ = 0, bytes_ = 0;
    std::vector<int64_t> shape_;
    Dtype dtype_ = Dtype::float32;
    Device device_;
};

// Raises ValueError if a tensor that a call writes shares memory with another of its tensors: the call would overwrite
// what it still reads, or what its caller still needs.
void check_no_overlap(const std::vector<const Tensor*>& written, const std::vector<const Tensor*>& read);

}  // namespace bertfast::bindings
