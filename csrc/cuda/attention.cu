#include "cuda/attention_kernel.cuh"
#include "cuda/device_block.cuh"
#include "cuda/launch.cuh"
#include "cuda/launchers.h"

namespace bertfast::cuda {

namespace {

// Blocks per multiprocessor. In float32 the backward pass needs more registers than two blocks would have.
template <typename T>
constexpr int BLOCKS = sizeof(T) == 2 ? 2 : 1;

using Block = DeviceBlock<AttentionRegisters>;

// Calls body(AttentionBlock) for each of the block's items.
template <typename T, typename Body>
__device__ void for_each_item(const AttentionShape& shape, bool whole, const Body& body) {
    extern __shared__ float4 shared_memory[];
    AttentionShared<T>& shared = *reinterpret_cast<AttentionShared<T>*>(shared_memory);
    float* const delta = reinterpret_cast<float*>(&shared + 1);
    for (int64_t item = blockIdx.x; item < shape.batch * shape.heads; item += gridDim.x) {
        Block block;
        body(AttentionBlock<T, Block>(block, shape, item, whole, shared, delta));
    }
}

template <typename T>
__global__ void __launch_bounds__(TILE_THREADS, BLOCKS<T>)
    attention_kernel(const __grid_constant__ AttentionShape shape, AttentionForward<T> tensors, bool whole) {
    for_each_item<T>(shape, whole, [&](auto block) { block.forward(tensors); });
}

template <typename T>
__global__ void __launch_bounds__(TILE_THREADS, BLOCKS<T>)
    attention_backward_kernel(const __grid_constant__ AttentionShape shape, AttentionBackward<T> tensors, bool whole) {
    for_each_item<T>(shape, whole, [&](auto block) { block.backward(tensors); });
}

template <typename T>
bool in_pieces(const AttentionShape& shape, std::initializer_list<const T*> tensors) {
    bool whole = shape.head_dim % Piece<T>::SIZE == 0;
    for (const T* each : tensors) whole &= reinterpret_cast<uintptr_t>(each) % sizeof(Piece<T>) == 0;
    return whole;
}

template <typename T, typename Kernel, typename Tensors>
void launch(Kernel* kernel, const AttentionShape& shape, const Tensors& tensors, bool whole, const std::string& name,
            void* stream) {
    const unsigned blocks = grid(shape.batch * shape.heads, 1);
    if (blocks == 0) return;
    const std::string what = name + " of " + std::to_string(shape.batch) + " sequences of up to " +
                             std::to_string(shape.max_seqlen) + ", " + std::to_string(shape.heads) + " heads of " +
                             std::to_string(shape.head_dim);
    const int bytes = shared_bytes(kernel, attention_shared_bytes<T>(shape.max_seqlen), what);
    kernel<<<blocks, TILE_THREADS, bytes, static_cast<cudaStream_t>(stream)>>>(shape, tensors, whole);
    check_launch(what);
}

template <typename T>
void forward(const AttentionShape& shape, const AttentionForward<T>& tensors, void* stream) {
    const bool whole = in_pieces<T>(shape, {tensors.query, tensors.key_value});
    launch<T>(attention_kernel<T>, shape, tensors, whole, "attention", stream);
}

template <typename T>
void backward(const AttentionShape& shape, const AttentionBackward<T>& tensors, void* stream) {
    const bool whole = in_pieces<T>(shape, {tensors.query, tensors.key_value, tensors.grad});
    launch<T>(attention_backward_kernel<T>, shape, tensors, whole, "attention_backward", stream);
}

}  // namespace

void attention(const AttentionShape& shape, const AttentionForward<float>& tensors, void* stream) {
    forward(shape, tensors, stream);
}

void attention(const AttentionShape& shape, const AttentionForward<bfloat16>& tensors, void* stream) {
    forward(shape, tensors, stream);
}

void attention_backward(const AttentionShape& shape, const AttentionBackward<float>& tensors, void* stream) {
    backward(shape, tensors, stream);
}

void attention_backward(const AttentionShape& shape, const AttentionBackward<bfloat16>& tensors, void* stream) {
    backward(shape, tensors, stream);
}

}  // namespace bertfast::cuda
