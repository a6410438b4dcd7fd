// A failed launch becomes an exception that names the kernel and its sizes.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace bertfast::cuda {

inline void check_launch(const std::string& what) {
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) throw std::runtime_error(what + ": " + cudaGetErrorString(error));
}

}  // namespace bertfast::cuda
