#include "bindings/tensor.h"

#include <pybind11/gil_safe_call_once.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <utility>

namespace bertfast::bindings {

namespace {

constexpr std::array<const char*, 7> DTYPE_NAMES = {"float32", "bfloat16", "int32", "int64",
                                                    "uint16",  "uint32",   "uint8"};
constexpr std::array<int64_t, DTYPE_NAMES.size()> DTYPE_BYTES = {4, 2, 4, 8, 2, 4, 1};

// torch's Tensor and dtype objects, looked up once and never freed: they live as long as the interpreter.
struct Torch {
    py::object tensor_type;
    std::array<py::object, DTYPE_NAMES.size()> dtypes;
    py::object current_stream;

    Torch() {
        const py::module_ torch = py::module_::import("torch");
        tensor_type = torch.attr("Tensor");
        for (size_t i = 0; i < DTYPE_NAMES.size(); ++i) dtypes[i] = torch.attr(DTYPE_NAMES[i]);
        current_stream = torch.attr("cuda").attr("current_stream");
    }
};

const Torch& torch() {
    PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<Torch> loaded;
    return loaded.call_once_and_store_result([] { return Torch(); }).get_stored();
}

std::string shape_text(const std::vector<int64_t>& shape) {
    std::string text = "(";
    for (size_t i = 0; i < shape.size(); ++i) {
        text += (i ? ", " : "") + (shape[i] == ANY ? std::string("any") : std::to_string(shape[i]));
    }
    return text + ")";
}

}  // namespace

Tensor::Tensor(py::handle object, const char* name, const std::vector<Dtype>& dtypes, const std::vector<int64_t>& shape)
    : Tensor(object, name, dtypes) {
    bool fits = shape_.size() == shape.size();
    for (size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] == ANY || shape[i] == shape_[i];
    if (!fits) {
        throw py::value_error(name_ + " must have the shape " + shape_text(shape) + ", not " + shape_text(shape_));
    }
}

Tensor::Tensor(py::handle object, const char* name, const std::vector<Dtype>& dtypes) : name_(name) {
    if (!py::isinstance(object, torch().tensor_type)) {
        throw py::type_error(name_ + " must be a torch.Tensor, not " +
                             std::string(py::str(py::type::handle_of(object).attr("__name__"))));
    }
    const py::object dtype = object.attr("dtype");
    bool known = false;
    std::string wanted;
    for (const Dtype candidate : dtypes) {
        const size_t index = static_cast<size_t>(candidate);
        wanted += (wanted.empty() ? "" : " or ") + std::string(DTYPE_NAMES[index]);
        if (dtype.is(torch().dtypes[index])) {
            dtype_ = candidate;
            known = true;
        }
    }
    if (!known) throw py::type_error(name_ + " must be " + wanted + ", not " + std::string(py::str(dtype)));

    shape_ = object.attr("shape").cast<std::vector<int64_t>>();
    if (!object.attr("is_contiguous")().cast<bool>()) throw py::value_error(name_ + " must be contiguous");

    if (object.attr("is_cuda").cast<bool>()) {
        const py::object device = object.attr("device");
        device_.cuda = true;
        device_.index = device.attr("index").cast<int>();
        device_.stream =
            reinterpret_cast<void*>(torch().current_stream(device).attr("cuda_stream").cast<std::uintptr_t>());
    } else if (!object.attr("is_cpu").cast<bool>()) {
        throw py::value_error(name_ + " must be on the CPU or on a CUDA device, not on " +
                              std::string(py::str(object.attr("device").attr("type"))));
    }
    data_ = reinterpret_cast<void*>(object.attr("data_ptr")().cast<std::uintptr_t>());
    const int64_t item = DTYPE_BYTES[static_cast<size_t>(dtype_)];
    if (reinterpret_cast<std::uintptr_t>(data_) % item != 0)
        throw py::value_error(name_ + " must be aligned to its items' size");
    // A tensor whose storage was resized may have a shape without memory.
    elements_ = object.attr("numel")().cast<int64_t>();
    bytes_ = elements_ * item;
    const int64_t offset = object.attr("storage_offset")().cast<int64_t>() * item;
    if (bytes_ > 0 && offset + bytes_ > object.attr("untyped_storage")().attr("nbytes")().cast<int64_t>()) {
        throw py::value_error(name_ + " is larger than its storage");
    }
}

const Tensor& Tensor::require_same_device(const Tensor& other) const {
    if (!(device_ == other.device_)) throw py::value_error(name_ + " must be on the same device as " + other.name_);
    return *this;
}

void check_no_overlap(const std::vector<const Tensor*>& written, const std::vector<const Tensor*>& read) {
    struct Extent {
        const Tensor* tensor;
        bool written;
    };
    std::vector<Extent> extents;
    for (const Tensor* each : written) extents.push_back({each, true});
    for (const Tensor* each : read) extents.push_back({each, false});
    std::stable_sort(extents.begin(), extents.end(),
                     [](const Extent& a, const Extent& b) { return a.tensor->begin() < b.tensor->begin(); });
    // The extents so far that reach furthest: among all, and among the written ones.
    const Extent *any = nullptr, *furthest = nullptr;
    for (const Extent& each : extents) {
        if (each.tensor->elements() == 0) continue;
        for (const Extent* before : {furthest, each.written ? any : nullptr}) {
            if (before == nullptr || before->tensor->end() <= each.tensor->begin()) continue;
            const Tensor &a = *(before->written ? before : &each)->tensor,
                         &b = *(before->written ? &each : before)->tensor;
            throw py::value_error(a.name() + " must not share memory with " + b.name());
        }
        if (any == nullptr || any->tensor->end() < each.tensor->end()) any = &each;
        if (each.written && (furthest == nullptr || furthest->tensor->end() < each.tensor->end())) furthest = &each;
    }
}

}  // namespace bertfast::bindings
