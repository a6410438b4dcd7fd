// Steps the threads of the fused masked-LM loss's kernels on the host, with working memory and shared memory poisoned.
#pragma once

#include "cuda/fused_mlm_loss_kernel.cuh"
#include "stepping.h"

namespace bertfast {

template <typename Products, cuda::LoopsOver LOOP, typename Body>
void step_block(const cuda::FusedMlmLoss& call, bool late, const Body& body) {
    using Block = HostBlock<cuda::FusedRegisters<Products, LOOP>>;
    auto shared = poisoned<cuda::FusedShared<Products, LOOP>>(1);
    Block block{cuda::TILE_THREADS, late};
    body(cuda::FusedMlmLossBlock<Products, LOOP, Block>(block, call, shared[0]));
}

// `late`: see HostBlock.
template <typename Products>
void step_fused(const cuda::FusedMlmLossForward& call, bool late) {
    for (int64_t row = 0; row < call.count; row += Products::Size::ROWS) {
        for (int64_t split = 0; split < call.splits; ++split) {
            step_block<Products, cuda::LoopsOver::words>(call, late,
                                                         [&](auto block) { block.forward(call, row, split); });
        }
    }
    for (int64_t row = 0; row < call.count; ++row) cuda::add_losses(call, row);
}

template <typename Products>
void step_fused(const cuda::FusedMlmLossBackward& call, bool late) {
    for (int64_t row = 0; row < call.count; row += Products::Size::ROWS) {
        for (int64_t split = 0; split < call.splits; ++split) {
            step_block<Products, cuda::LoopsOver::words>(call, late,
                                                         [&](auto block) { block.grad_rows(call, row, split); });
        }
    }
    for (int64_t word = 0; word < call.padded_vocab; word += cuda::TILE) {
        step_block<Products, cuda::LoopsOver::rows>(call, late, [&](auto block) { block.grad_words(call, word); });
    }
    for (int64_t item = 0; item < call.count * call.hidden / 4; ++item) cuda::add_grad_rows(call, item);
}

// `Products`: cuda::WarpProducts or cuda::WarpgroupProducts.
template <template <typename Size> class Products, typename Call>
void step_fused(const Call& call, bool late) {
    call.hidden <= cuda::NarrowRows::MAX_HIDDEN ? step_fused<Products<cuda::NarrowRows>>(call, late)
                                                : step_fused<Products<cuda::WideRows>>(call, late);
}

}  // namespace bertfast
