#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "cuda/launchers.h"

namespace bertfast::cuda {

namespace {

// An error of these calls is no kernel's: it is cleared, so that no later launch is blamed for it.
void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    cudaGetLastError();
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

}  // namespace

void pin_read_only(void* memory, size_t bytes) {
    int device = 0, same_address = 0, read_only = 0;
    check(cudaGetDevice(&device), "CUDA's current device");
    check(cudaDeviceGetAttribute(&same_address, cudaDevAttrCanUseHostPointerForRegisteredMem, device),
          "CUDA's current device");
    if (!same_address) throw std::runtime_error("the GPU does not read host memory at its host address");
    check(cudaDeviceGetAttribute(&read_only, cudaDevAttrHostRegisterReadOnlySupported, device),
          "CUDA's current device");
    if (!read_only) throw std::runtime_error("the GPU's driver pins no memory that it may only read");
    check(cudaHostRegister(memory, bytes, cudaHostRegisterReadOnly | cudaHostRegisterPortable), "cudaHostRegister");
}

void unpin(void* memory) {
    check(cudaHostUnregister(memory), "cudaHostUnregister");
}

}  // namespace bertfast::cuda
