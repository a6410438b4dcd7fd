// Attention over packed sequences.
#pragma once

#include "core/attention.h"
#include "cpu/simd/isa.h"

BERTFAST_DECLARE(void attention(const AttentionShape& shape, const AttentionForward<float>& tensors))
BERTFAST_DECLARE(void attention(const AttentionShape& shape, const AttentionForward<bfloat16>& tensors))
BERTFAST_DECLARE(void attention_backward(const AttentionShape& shape, const AttentionBackward<float>& tensors))
BERTFAST_DECLARE(void attention_backward(const AttentionShape& shape, const AttentionBackward<bfloat16>& tensors))
