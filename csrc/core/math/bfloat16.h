// bfloat16, the upper half of a float32, held as bits so that one type serves host and device.
#pragma once

#include <cstring>

#include "core/host_device.h"

namespace bertfast {

struct bfloat16 {
    uint16_t bits;
};

BERTFAST_HD float to_float(float value) {
    return value;
}

BERTFAST_HD float to_float(bfloat16 value) {
    const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

BERTFAST_HD void from_float(float value, float& result) {
    result = value;
}

// Rounds to nearest, ties to even. A NaN stays a NaN.
BERTFAST_HD void from_float(float value, bfloat16& result) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
#else
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    result.bits = value != value ? 0x7FFF : static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
#endif
}

}  // namespace bertfast
