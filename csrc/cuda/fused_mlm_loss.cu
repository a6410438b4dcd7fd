#include <algorithm>

#include "cuda/device_block.cuh"
#include "cuda/fused_mlm_loss_kernel.cuh"
#include "cuda/launch.cuh"
#include "cuda/launchers.h"

namespace bertfast::cuda {

namespace {

constexpr int ADDING_THREADS = 256;

// Blocks per multiprocessor. Without wgmma, two blocks of the gradients would not have enough registers.
constexpr int LOSS_BLOCKS = 2;

#if defined(BERTFAST_WGMMA)
constexpr int GRADIENT_BLOCKS = 2;

template <typename Size>
using Products = WarpgroupProducts<Size>;
#else
constexpr int GRADIENT_BLOCKS = 1;

template <typename Size>
using Products = WarpProducts<Size>;
#endif

// A block's shared memory, whichever products the device's code was compiled with.
template <typename Size, LoopsOver LOOP>
constexpr int64_t SHARED_BYTES = sizeof(FusedShared<WarpgroupProducts<Size>, LOOP>);

template <typename Size>
constexpr bool FITS =
    sizeof(FusedShared<WarpProducts<Size>, LoopsOver::words>) <= SHARED_BYTES<Size, LoopsOver::words> &&
    sizeof(FusedShared<WarpProducts<Size>, LoopsOver::rows>) <= SHARED_BYTES<Size, LoopsOver::rows> &&
    // the Python op requires a device with this much
    SHARED_BYTES<Size, LoopsOver::rows> <= 110 << 10;
static_assert(FITS<NarrowRows> && FITS<WideRows>);

// Calls body(FusedMlmLossBlock).
template <typename Size, LoopsOver LOOP, typename Body>
__device__ void with_block(const FusedMlmLoss& call, const Body& body) {
    extern __shared__ __align__(1024) unsigned char shared_memory[];
    using Block = DeviceBlock<FusedRegisters<Products<Size>, LOOP>>;
    Block block;
    auto& shared = *reinterpret_cast<FusedShared<Products<Size>, LOOP>*>(shared_memory);
    body(FusedMlmLossBlock<Products<Size>, LOOP, Block>(block, call, shared));
}

template <typename Size>
__global__ void __launch_bounds__(TILE_THREADS, LOSS_BLOCKS)
    loss_kernel(const __grid_constant__ FusedMlmLossForward call) {
    const int64_t split = blockIdx.x % call.splits, tile = blockIdx.x / call.splits;
    with_block<Size, LoopsOver::words>(call, [&](auto block) { block.forward(call, tile * Size::ROWS, split); });
}

// The first `row_blocks` blocks compute the rows' gradients, the others the words'. One launch does both, so that no
// multiprocessor idles while the last blocks of the first kind run; the longer blocks come first.
template <typename Size>
__global__ void __launch_bounds__(TILE_THREADS, GRADIENT_BLOCKS)
    gradients_kernel(const __grid_constant__ FusedMlmLossBackward call, int64_t row_blocks) {
    const int64_t index = blockIdx.x;
    if (index < row_blocks) {
        const int64_t split = index % call.splits, tile = index / call.splits;
        with_block<Size, LoopsOver::words>(call, [&](auto block) { block.grad_rows(call, tile * Size::ROWS, split); });
    } else {
        with_block<Size, LoopsOver::rows>(call,
                                          [&](auto block) { block.grad_words(call, (index - row_blocks) * TILE); });
    }
}

__global__ void __launch_bounds__(ADDING_THREADS) add_losses_kernel(const __grid_constant__ FusedMlmLossForward call) {
    for_each_of_thread(call.count, [&](int64_t row) { add_losses(call, row); });
}

__global__ void __launch_bounds__(ADDING_THREADS)
    add_grad_rows_kernel(const __grid_constant__ FusedMlmLossBackward call) {
    for_each_of_thread(call.count * (call.hidden / 4), [&](int64_t item) { add_grad_rows(call, item); });
}

std::string sizes_of(const FusedMlmLoss& call) {
    return of_size(call.count, call.hidden) + " rows, " + std::to_string(call.vocab_size) + " words";
}

template <typename Size>
void forward(const FusedMlmLossForward& call, cudaStream_t stream) {
    const int64_t tiles = (call.count + Size::ROWS - 1) / Size::ROWS;
    if (tiles == 0) return;
    const std::string what = "fused_mlm_loss" + sizes_of(call);
    const int bytes = shared_bytes(loss_kernel<Size>, SHARED_BYTES<Size, LoopsOver::words>, what);
    loss_kernel<Size><<<static_cast<unsigned>(tiles * call.splits), TILE_THREADS, bytes, stream>>>(call);
    check_launch(what);
    add_losses_kernel<<<grid(call.count, ADDING_THREADS), ADDING_THREADS, 0, stream>>>(call);
    check_launch(what + ", sums");
}

template <typename Size>
void backward(const FusedMlmLossBackward& call, cudaStream_t stream) {
    const int64_t tiles = (call.count + Size::ROWS - 1) / Size::ROWS, words = (call.padded_vocab + TILE - 1) / TILE;
    const int64_t row_blocks = tiles * call.splits;
    const std::string what = "fused_mlm_loss_backward" + sizes_of(call);
    constexpr int64_t SHARED = std::max(SHARED_BYTES<Size, LoopsOver::words>, SHARED_BYTES<Size, LoopsOver::rows>);
    const int bytes = shared_bytes(gradients_kernel<Size>, SHARED, what);
    gradients_kernel<Size>
        <<<static_cast<unsigned>(row_blocks + words), TILE_THREADS, bytes, stream>>>(call, row_blocks);
    check_launch(what);
    if (tiles == 0) return;
    add_grad_rows_kernel<<<grid(call.count * (call.hidden / 4), ADDING_THREADS), ADDING_THREADS, 0, stream>>>(call);
    check_launch(what + ", sums");
}

}  // namespace

void fused_mlm_loss(const FusedMlmLossForward& call, void* stream) {
    const auto run = call.hidden <= NarrowRows::MAX_HIDDEN ? forward<NarrowRows> : forward<WideRows>;
    run(call, static_cast<cudaStream_t>(stream));
}

void fused_mlm_loss_backward(const FusedMlmLossBackward& call, void* stream) {
    const auto run = call.hidden <= NarrowRows::MAX_HIDDEN ? backward<NarrowRows> : backward<WideRows>;
    run(call, static_cast<cudaStream_t>(stream));
}

}  // namespace bertfast::cuda
