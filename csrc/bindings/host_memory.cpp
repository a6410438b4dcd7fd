// Pins host memory that a process may only read, such as a mapped file, so that GPUs read it where it lies.
#include "bindings/module.h"
#include "bindings/run.h"

namespace bertfast::bindings {

namespace {

void pin_read_only(uintptr_t address, size_t bytes) {
    const py::gil_scoped_release unlocked;
    BERTFAST_LAUNCH(pin_read_only(reinterpret_cast<void*>(address), bytes));
}

void unpin(uintptr_t address) {
    const py::gil_scoped_release unlocked;
    BERTFAST_LAUNCH(unpin(reinterpret_cast<void*>(address)));
}

}  // namespace

void bind_host_memory(py::module_& module) {
    module.def("pin_read_only", &pin_read_only, py::arg("address"), py::arg("bytes"));
    module.def("unpin", &unpin, py::arg("address"));
}

}  // namespace bertfast::bindings
