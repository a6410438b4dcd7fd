// A step of Adam.
#pragma once

#include "core/adam.h"
#include "cpu/simd/isa.h"

BERTFAST_DECLARE(void adam(const AdamTensor* tensors, int64_t count, const AdamRule& rule))
