// A kernel's limit on shared memory is never lowered. The two devices here are fakes that only record the limits.
#include <cuda_runtime.h>
#include <device_launch_parameters.h>

#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cuda/launch.cuh"

namespace {

constexpr int MAX_BYTES = 200 << 10;
thread_local int current = 0;
std::map<std::pair<int, const void*>, int> allowed;  // by device and kernel; read and written under shared_bytes' lock

void one(int) {}
void other(int) {}

int allowed_on(int device, void (*kernel)(int)) {
    return allowed[{device, reinterpret_cast<const void*>(kernel)}];
}

int wrong = 0;

void expect(int is, int should, const char* what) {
    if (is == should) return;
    std::printf("%s: %d bytes, not %d\n", what, is, should);
    ++wrong;
}

}  // namespace

cudaError_t cudaGetLastError() {
    return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t) {
    return "no error";
}
cudaError_t cudaGetDevice(int* device) {
    *device = current;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
    *value = MAX_BYTES;
    return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel) {
    attributes->maxDynamicSharedSizeBytes = allowed[{current, kernel}];
    return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int bytes) {
    allowed[{current, kernel}] = bytes;
    return cudaSuccess;
}

int main() {
    using bertfast::cuda::shared_bytes;
    using namespace std::string_literals;
    expect(shared_bytes(one, 1000, "one"), 1000, "what any kernel may have");
    expect(allowed_on(0, one), 0, "unasked");
    expect(shared_bytes(one, 100 << 10, "one"), 100 << 10, "more");
    expect(shared_bytes(one, 60 << 10, "one"), 60 << 10, "then less");
    expect(allowed_on(0, one), 100 << 10, "kept");
    expect(allowed_on(0, other), 0, "another kernel");
    expect(allowed_on(1, one), 0, "another device");
    current = 1;
    expect(shared_bytes(one, 60 << 10, "one"), 60 << 10, "less there");
    expect(allowed_on(1, one), 60 << 10, "allowed there");
    try {
        shared_bytes(one, MAX_BYTES + 1, "one");
        expect(MAX_BYTES + 1, 0, "more than the device has");
    } catch (const std::runtime_error& error) {
        if (error.what() != "one needs 204801 bytes of shared memory, and the device has 204800"s) {
            std::printf("more than the device has: %s\n", error.what());
            ++wrong;
        }
    }

    std::vector<std::thread> threads;
    for (int device = 0; device < 2; ++device) {
        for (int i = 1; i <= 4; ++i) {
            threads.emplace_back([device, i] {
                current = device;
                for (int bytes = 50 << 10; bytes < 150 << 10; bytes += 7 * i) shared_bytes(one, bytes, "one");
                shared_bytes(one, (150 + i) << 10, "one");
            });
        }
    }
    for (std::thread& thread : threads) thread.join();
    for (int device = 0; device < 2; ++device) expect(allowed_on(device, one), 154 << 10, "the largest of all threads");
    return wrong ? 1 : 0;
}
