// Kernels in which each warp works on an item of its own, in its own part of shared memory.
#pragma once

#include <algorithm>

#include "cuda/launch.cuh"
#include "cuda/warp_layer_norm.cuh"

namespace bertfast::cuda {

constexpr int MAX_WARPS = 4;  // in a block

struct WarpsLaunch {
    unsigned blocks;
    int threads, bytes;
};

// A launch for `items`, one per warp at a time, where each warp's memory holds `rows` rows of `columns` columns.
template <typename Kernel>
WarpsLaunch warps_launch(Kernel* kernel, int64_t items, int64_t columns, int64_t rows, const std::string& what) {
    const int64_t bytes = warp_floats(columns, rows) * int64_t{sizeof(float)};
    const int64_t warps =
        MAX_WARPS * bytes <= 48 << 10 ? MAX_WARPS : std::clamp<int64_t>(max_shared_bytes() / bytes, 1, MAX_WARPS);
    return {grid(items, warps), static_cast<int>(warps) * WARP, shared_bytes(kernel, warps * bytes, what)};
}

// See warp_layer_norm.cuh.
struct WarpLanes {
    WarpRows warp;

    template <typename Body>
    __device__ void operator()(const Body& body) const {
        body(warp);
        __syncwarp();
    }
};

// Calls body(item, lanes) for the warp's items.
template <typename Body>
__device__ void for_each_item(int64_t items, int64_t columns, int64_t rows, const Body& body) {
    extern __shared__ float4 shared_memory[];
    const int number = static_cast<int>(threadIdx.x) / WARP, warps = static_cast<int>(blockDim.x) / WARP;
    const WarpLanes lanes{{reinterpret_cast<float*>(shared_memory) + number * warp_floats(columns, rows), columns,
                           static_cast<int>(threadIdx.x) % WARP}};
    for (int64_t item = static_cast<int64_t>(blockIdx.x) * warps + number; item < items;
         item += static_cast<int64_t>(gridDim.x) * warps) {
        body(item, lanes);
    }
}

}  // namespace bertfast::cuda
