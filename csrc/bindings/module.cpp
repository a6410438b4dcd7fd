// The extension's entry: what it was built with, and one bind_ function for each group of kernels.
#include "bindings/module.h"

#include <string>

#include "cpu/dispatch.h"

namespace py = pybind11;
using bertfast::cpu::Isa;

namespace {

const char* isa_name(Isa isa) {
    return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "portable";
}

// For tests: runs a lesser instruction set than the processor's best.
void use_isa(const std::string& name) {
    for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512}) {
        if (name != isa_name(isa)) continue;
        if (isa > bertfast::cpu::best_isa()) throw py::value_error("this processor has no " + name);
        bertfast::cpu::active_isa() = isa;
        return;
    }
    throw py::value_error("no such instruction set: " + name);
}

}  // namespace

PYBIND11_MODULE(_bertfast, module) {
    module.attr("__version__") = BERTFAST_VERSION;
#if defined(BERTFAST_HAS_CUDA)
    module.attr("has_cuda") = true;
#else
    module.attr("has_cuda") = false;
#endif
    module.def("isa", [] { return isa_name(bertfast::cpu::active_isa()); });
    module.def("use_isa", &use_isa, py::arg("name"));
    bertfast::bindings::bind_sampler(module);
}
