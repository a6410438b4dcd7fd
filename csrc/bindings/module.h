// The parts of the module: each function adds one group of kernels.
#pragma once

#include <pybind11/pybind11.h>

namespace bertfast::bindings {

void bind_adam(pybind11::module_& module);
void bind_attention(pybind11::module_& module);
void bind_embedding(pybind11::module_& module);
void bind_fused_mlm_loss(pybind11::module_& module);
void bind_column_sums(pybind11::module_& module);
void bind_gelu(pybind11::module_& module);
void bind_heap(pybind11::module_& module);
void bind_host_memory(pybind11::module_& module);
void bind_layer_norm(pybind11::module_& module);
void bind_matrix_product(pybind11::module_& module);
void bind_mlm_loss(pybind11::module_& module);
void bind_sampler(pybind11::module_& module);

}  // namespace bertfast::bindings
