// Shared by the launchers: the number of blocks, shared memory, and an exception for a failed launch that names the
// kernel and its sizes.
#pragma once

#include <cuda_runtime.h>

#include <mutex>
#include <stdexcept>
#include <string>

namespace bertfast::cuda {

inline void check_launch(const std::string& what) {
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) throw std::runtime_error(what + ": " + cudaGetErrorString(error));
}

// The sizes, as they follow a kernel's name in a message.
inline std::string of_size(int64_t rows, int64_t columns) {
    return " of " + std::to_string(rows) + " x " + std::to_string(columns);
}

// The number of blocks for `items` items if each takes `per_block` at a time. Kernels loop over the rest.
inline unsigned grid(int64_t items, int64_t per_block) {
    const int64_t blocks = (items + per_block - 1) / per_block;
    return static_cast<unsigned>(blocks < 1 << 16 ? blocks : 1 << 16);
}

// Calls body(item) for each item of a thread.
template <typename Body>
__device__ void for_each_of_thread(int64_t items, const Body& body) {
    const int64_t threads = blockDim.x;
    for (int64_t item = blockIdx.x * threads + threadIdx.x; item < items; item += gridDim.x * threads) body(item);
}

// The most shared memory that a block of the current device can have.
inline int64_t max_shared_bytes() {
    int device = 0, most = 0;
    if (cudaGetDevice(&device) == cudaSuccess) {
        cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    }
    return most;
}

// Returns `bytes` for the launch, after raising the kernel's limit if it is too low. Throws if the device has less;
// `what` names the launch. A kernel's limit on a device is never lowered: a CUDA graph may hold a launch that needs it.
template <typename Kernel>
int shared_bytes(Kernel* kernel, int64_t bytes, const std::string& what) {
    if (bytes <= 48 << 10) return static_cast<int>(bytes);
    if (const int64_t most = max_shared_bytes(); bytes > most) {
        throw std::runtime_error(what + " needs " + std::to_string(bytes) +
                                 " bytes of shared memory, and the device has " + std::to_string(most));
    }
    static std::mutex allowing;  // DataParallel launches from one thread per device
    const std::lock_guard<std::mutex> lock(allowing);
    cudaFuncAttributes allowed = {};
    const void* const function = reinterpret_cast<const void*>(kernel);
    cudaFuncGetAttributes(&allowed, function);
    if (allowed.maxDynamicSharedSizeBytes < bytes) {
        cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    }
    check_launch(what + ": shared memory");
    return static_cast<int>(bytes);
}

}  // namespace bertfast::cuda
