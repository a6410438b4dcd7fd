// The CUDA device's memory.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>

#include "device.h"

namespace bertfast::device {

namespace {

void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    std::printf("%s: %s\n", what, cudaGetErrorString(error));
    std::exit(1);
}

}  // namespace

void require() {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count > 0) return;
    std::printf("no CUDA device: %s\n", cudaGetErrorString(error));
    std::exit(77);
}

void* allocate(size_t bytes) {
    void* address = nullptr;
    check(cudaMalloc(&address, bytes > 0 ? bytes : 1), "cudaMalloc");
    check(cudaMemset(address, 0xFF, bytes), "cudaMemset");
    return address;
}

void release(void* address) {
    check(cudaFree(address), "cudaFree");
}

void to_device(void* to, const void* from, size_t bytes) {
    check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "cudaMemcpy to the device");
}

void to_host(void* to, const void* from, size_t bytes) {
    check(cudaDeviceSynchronize(), "a kernel");
    check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy to the host");
}

const char* name() {
    static cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    return properties.name;
}

}  // namespace bertfast::device
