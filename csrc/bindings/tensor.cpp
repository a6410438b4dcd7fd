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

// The name of an attribute. Made from a text for each look-up, names would take a third of a small kernel's call.
class Name {
  public:
    explicit Name(const char* text) : text_(py::reinterpret_steal<py::object>(PyUnicode_InternFromString(text))) {}

    py::object of(py::handle object) const { return object.attr(text_); }
    // The result of the method with this name.
    py::object call(py::handle object) const {
        PyObject* const result = PyObject_CallMethodNoArgs(object.ptr(), text_.ptr());
        if (result == nullptr) throw py::error_already_set();
        return py::reinterpret_steal<py::object>(result);
    }

  private:
    py::object text_;
};

// torch's Tensor and dtype objects, and its tensors' attributes, looked up once and never freed: they live as long as
// the interpreter.
struct Torch {
    py::object tensor_type;
    std::array<py::object, DTYPE_NAMES.size()> dtypes;
    py::object current_stream;
    Name dtype{"dtype"}, shape{"shape"}, is_contiguous{"is_contiguous"}, is_cuda{"is_cuda"}, is_cpu{"is_cpu"},
        data_ptr{"data_ptr"}, storage_offset{"storage_offset"}, untyped_storage{"untyped_storage"}, nbytes{"nbytes"};

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
    const Torch& torch = bertfast::bindings::torch();
    if (!py::isinstance(object, torch.tensor_type)) {
        throw py::type_error(name_ + " must be a torch.Tensor, not " +
                             std::string(py::str(py::type::handle_of(object).attr("__name__"))));
    }
    const py::object dtype = torch.dtype.of(object);
    const auto is = [&](Dtype candidate) { return dtype.is(torch.dtypes[static_cast<size_t>(candidate)]); };
    const auto found = std::find_if(dtypes.begin(), dtypes.end(), is);
    if (found == dtypes.end()) {
        std::string wanted;
        for (const Dtype candidate : dtypes) {
            wanted += (wanted.empty() ? "" : " or ") + std::string(DTYPE_NAMES[static_cast<size_t>(candidate)]);
        }
        throw py::type_error(name_ + " must be " + wanted + ", not " + std::string(py::str(dtype)));
    }
    dtype_ = *found;

    elements_ = 1;
    for (const py::handle extent : py::tuple(torch.shape.of(object))) {
        shape_.push_back(extent.cast<int64_t>());
        elements_ *= shape_.back();
    }
    if (!torch.is_contiguous.call(object).cast<bool>()) throw py::value_error(name_ + " must be contiguous");

    if (torch.is_cuda.of(object).cast<bool>()) {
        const py::object device = object.attr("device");
        device_.cuda = true;
        device_.index = device.attr("index").cast<int>();
        device_.stream =
            reinterpret_cast<void*>(torch.current_stream(device).attr("cuda_stream").cast<std::uintptr_t>());
    } else if (!torch.is_cpu.of(object).cast<bool>()) {
        throw py::value_error(name_ + " must be on the CPU or on a CUDA device, not on " +
                              std::string(py::str(object.attr("device").attr("type"))));
    }
    data_ = reinterpret_cast<void*>(torch.data_ptr.call(object).cast<std::uintptr_t>());
    const int64_t item = DTYPE_BYTES[static_cast<size_t>(dtype_)];
    if (reinterpret_cast<std::uintptr_t>(data_) % item != 0)
        throw py::value_error(name_ + " must be aligned to its items' size");
    // A tensor whose storage was resized may have a shape without memory.
    bytes_ = elements_ * item;
    const int64_t offset = torch.storage_offset.call(object).cast<int64_t>() * item;
    const py::object storage = torch.untyped_storage.call(object);
    if (bytes_ > 0 && offset + bytes_ > torch.nbytes.call(storage).cast<int64_t>()) {
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
