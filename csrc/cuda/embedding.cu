#include "cuda/embedding_kernel.cuh"
#include "cuda/launchers.h"
#include "cuda/warp_per_item.cuh"

namespace bertfast::cuda {

namespace {

template <typename T, typename Whole>
__global__ void __launch_bounds__(MAX_WARPS* WARP, 4) embedding_kernel(EmbeddingLayerNorm<T> call, Whole whole) {
    for_each_item(call.tables.tokens, call.tables.hidden, EMBEDDING_ROWS,
                  [&](int64_t token, const WarpLanes& lanes) { embedding_token(call, whole, token, lanes); });
}

template <typename T, typename Whole>
__global__ void __launch_bounds__(MAX_WARPS* WARP, 4)
    embedding_backward_kernel(EmbeddingLayerNormBackward<T> call, Whole whole, float* partial, int64_t slices) {
    for_each_item(
        slices, call.tables.hidden, embedding_backward_rows(call.tables),
        [&](int64_t slice, const WarpLanes& lanes) { embedding_slice(call, whole, slice, slices, partial, lanes); });
}

// blockIdx.y: which ENTRY_COLUMNS columns.
template <typename Tokens, typename Whole>
__global__ void __launch_bounds__(ENTRY_THREADS) entry_kernel(EntrySums<Tokens> sums, Whole whole) {
    __shared__ EntryShared shared;
    for (int64_t entry = blockIdx.x; entry < sums.entries; entry += gridDim.x) {
        for (int phase = 0; phase < ENTRY_PHASES; ++phase) {
            entry_phase(phase, sums, whole, entry, int64_t{blockIdx.y} * ENTRY_COLUMNS, static_cast<int>(threadIdx.x),
                        shared);
            __syncthreads();
        }
    }
}

template <typename T>
void forward(const EmbeddingLayerNorm<T>& call, void* stream) {
    const EmbeddingTables& tables = call.tables;
    if (tables.tokens == 0) return;
    const std::string what = "embedding_layer_norm" + of_size(tables.tokens, tables.hidden);
    const bool whole =
        in_fours(tables.hidden, tables.word, tables.type, tables.position, call.weight, call.bias, call.out);
    with_constant(whole, [&](auto constant) {
        const auto kernel = embedding_kernel<T, decltype(constant)>;
        const WarpsLaunch launch = warps_launch(kernel, tables.tokens, tables.hidden, EMBEDDING_ROWS, what);
        kernel<<<launch.blocks, launch.threads, launch.bytes, static_cast<cudaStream_t>(stream)>>>(call, constant);
    });
    check_launch(what);
}

template <typename Tokens>
void add_by_entry(const float* rows, const Tokens& tokens, int64_t entries, int64_t hidden, float* grad, void* stream) {
    const dim3 blocks(grid(entries, 1), static_cast<unsigned>((hidden + ENTRY_COLUMNS - 1) / ENTRY_COLUMNS));
    if (blocks.x == 0) return;
    with_constant(in_fours(hidden, rows, grad), [&](auto whole) {
        const EntrySums<Tokens> sums{rows, tokens, entries, hidden, grad};
        entry_kernel<<<blocks, ENTRY_THREADS, 0, static_cast<cudaStream_t>(stream)>>>(sums, whole);
    });
    check_launch("a table's gradient" + of_size(entries, hidden));
}

template <typename T>
void backward(const EmbeddingLayerNormBackward<T>& call, const TokensByEntry& by_word,
              const TokensByPosition& by_position, float* partial, int64_t slices, void* stream) {
    const EmbeddingTables& tables = call.tables;
    const int64_t hidden = tables.hidden, stride = embedding_sums(tables) * hidden;
    if (hidden == 0) return;
    const std::string what = "embedding_layer_norm_backward" + of_size(tables.tokens, hidden);
    const bool whole =
        in_fours(hidden, call.grad, tables.word, tables.type, tables.position, call.weight, call.grad_sum, partial);
    with_constant(whole, [&](auto constant) {
        const auto kernel = embedding_backward_kernel<T, decltype(constant)>;
        const WarpsLaunch launch = warps_launch(kernel, slices, hidden, embedding_backward_rows(tables), what);
        kernel<<<launch.blocks, launch.threads, launch.bytes, static_cast<cudaStream_t>(stream)>>>(call, constant,
                                                                                                   partial, slices);
    });
    check_launch(what);
    sum_slices(partial, slices, stride, hidden, call.grad_weight, stream);
    sum_slices(partial + hidden, slices, stride, hidden, call.grad_bias, stream);
    sum_slices(partial + 2 * hidden, slices, stride, tables.types * hidden, call.grad_type, stream);
    add_by_entry(call.grad_sum, by_word, tables.words, hidden, call.grad_word, stream);
    add_by_entry(call.grad_sum, by_position, tables.positions, hidden, call.grad_position, stream);
}

}  // namespace

void embedding_layer_norm(const EmbeddingLayerNorm<float>& call, void* stream) {
    forward(call, stream);
}

void embedding_layer_norm(const EmbeddingLayerNorm<bfloat16>& call, void* stream) {
    forward(call, stream);
}

void embedding_layer_norm_backward(const EmbeddingLayerNormBackward<float>& call, const TokensByEntry& by_word,
                                   const TokensByPosition& by_position, float* partial, int64_t slices, void* stream) {
    backward(call, by_word, by_position, partial, slices, stream);
}

void embedding_layer_norm_backward(const EmbeddingLayerNormBackward<bfloat16>& call, const TokensByEntry& by_word,
                                   const TokensByPosition& by_position, float* partial, int64_t slices, void* stream) {
    backward(call, by_word, by_position, partial, slices, stream);
}

}  // namespace bertfast::cuda
