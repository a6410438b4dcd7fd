// A library for the op's tests in Python: the fused masked-LM loss's kernels, stepped on the host.
#include "fused_stepping.h"

using namespace bertfast;

namespace {

template <typename Call>
void step(const Call& call, bool by_warpgroups) {
    by_warpgroups ? step_fused<cuda::WarpgroupProducts>(call, true) : step_fused<cuda::WarpProducts>(call, true);
}

}  // namespace

extern "C" void step_fused_mlm_loss(bool by_warpgroups, const cuda::FusedMlmLoss* inputs, LogSumExp* partial,
                                    float* label_logits, float* losses, cuda::RowStatistics* statistics) {
    step(cuda::FusedMlmLossForward{*inputs, partial, label_logits, losses, statistics}, by_warpgroups);
}

extern "C" void step_fused_mlm_loss_backward(bool by_warpgroups, const cuda::FusedMlmLoss* inputs,
                                             const cuda::RowStatistics* statistics, const float* grad, float* partial,
                                             bfloat16* grad_rows, bfloat16* grad_decoder, float* grad_bias) {
    step(cuda::FusedMlmLossBackward{*inputs, statistics, grad, partial, grad_rows, grad_decoder, grad_bias},
         by_warpgroups);
}
