// Launches cpu/adam.h's work on a CUDA stream (a cudaStream_t). The table of tensors is the host's: a launch takes its
// part of it along, so that one that was captured finds it again.
#pragma once

#include "core/adam.h"

namespace bertfast::cuda {

void adam(const AdamTensor* tensors, int64_t count, const AdamRule& rule, void* stream);

}  // namespace bertfast::cuda
