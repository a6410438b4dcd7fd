// The extension's entry: what it was built with, and one bind_ function for each group of kernels.
#include "bindings/module.h"

#include <iterator>
#include <string>

#include "bindings/run.h"
#include "cpu/simd/parallel.h"

namespace py = pybind11;
using bertfast::cpu::Isa;
using bertfast::cpu::ISA_NAMES;

namespace {

// The names of the processor's instruction sets, the best last.
py::list isas() {
    py::list names;
    for (int i = 0; i <= static_cast<int>(bertfast::cpu::best_isa()); ++i) names.append(ISA_NAMES[i]);
    return names;
}

// For tests: selects an instruction set below the processor's best.
void use_isa(const std::string& name) {
    for (size_t i = 0; i < std::size(ISA_NAMES); ++i) {
        if (name != ISA_NAMES[i]) continue;
        const Isa isa = static_cast<Isa>(i);
        if (isa > bertfast::cpu::best_isa()) throw py::value_error("this processor does not support " + name);
        bertfast::cpu::active_isa() = isa;
        return;
    }
    throw py::value_error("unknown instruction set: " + name);
}

bool cpu_is_intel() {
#if defined(__x86_64__)
    return __builtin_cpu_is("intel");
#else
    return false;
#endif
}

void set_threads(int64_t most) {
    if (most < 1 || most > 1 << 16) throw py::value_error("most must be in [1, 65536]");
    bertfast::cpu::set_threads(most);
}

}  // namespace

PYBIND11_MODULE(_bertfast, module) {
    module.attr("__version__") = BERTFAST_VERSION;
    module.attr("has_cuda") = bertfast::bindings::HAS_CUDA;
    module.def("isa", [] { return ISA_NAMES[static_cast<int>(bertfast::cpu::active_isa())]; });
    module.def("cpu_has_bf16", &bertfast::cpu::has_bf16);
    module.def("isas", &isas);
    module.def("cpu_is_intel", &cpu_is_intel);
    module.def("set_threads", &set_threads, py::arg("most"));
    module.def("use_isa", &use_isa, py::arg("name"));
    bertfast::bindings::bind_adam(module);
    bertfast::bindings::bind_attention(module);
    bertfast::bindings::bind_embedding(module);
    bertfast::bindings::bind_fused_mlm_loss(module);
    bertfast::bindings::bind_column_sums(module);
    bertfast::bindings::bind_gelu(module);
    bertfast::bindings::bind_heap(module);
    bertfast::bindings::bind_host_memory(module);
    bertfast::bindings::bind_layer_norm(module);
    bertfast::bindings::bind_matrix_product(module);
    bertfast::bindings::bind_mlm_loss(module);
    bertfast::bindings::bind_sampler(module);
}
