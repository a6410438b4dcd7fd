// Turns a chunk of logits into its gradient, in place, while it computes each row's loss (core/mlm_loss.h). Each slice
// of rows is one thread's work, so that the sums over rows come in a fixed order.
#pragma once

#include "core/mlm_loss.h"
#include "cpu/simd/isa.h"

BERTFAST_DECLARE(void mlm_loss(const MlmLossChunk<float>& chunk); void mlm_loss(const MlmLossChunk<bfloat16>& chunk))
