// Vector arithmetic in GCC's vector extensions: one source, as wide as the instruction set it is compiled for. All
// arithmetic is in float32; bfloat16 is only loaded and stored.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "core/math/bfloat16.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace bertfast::cpu::BERTFAST_ISA {

#if defined(__AVX512F__)
constexpr int64_t LANES = 16;
#elif defined(__AVX2__)
constexpr int64_t LANES = 8;
#else
constexpr int64_t LANES = 4;
#endif

constexpr int64_t LONG_LANES = LANES / 2;

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint64_t Longs __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

static inline Floats broadcast(float value) {
    return value - Floats{};
}

// The same bits as another type.
template <typename To, typename From>
static inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

// The lanes with these numbers of a and b, whose numbers follow those of a.
template <int... LANE, typename Vector>
static inline Vector shuffled(Vector a, Vector b) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, LANE...);
#else
    return __builtin_shuffle(a, b, decltype(a < b){LANE...});
#endif
}

// Without the intrinsics, GCC 12 converts in two parts on x86, and element by element on ARM.
static inline Words widened(Halves halves) {
#if defined(__AVX512F__)
    return (Words)_mm512_maskz_cvtepu16_epi32(0xFFFF, (__m256i)halves);
#elif defined(__AVX2__)
    return (Words)_mm256_cvtepu16_epi32((__m128i)halves);
#elif defined(__aarch64__)
    return (Words)vmovl_u16((uint16x4_t)halves);
#else
    return __builtin_convertvector(halves, Words);
#endif
}

static inline Floats load(const float* from) {
    Floats value;
    memcpy(&value, from, sizeof value);
    return value;
}

static inline Floats load(const bfloat16* from) {
    Halves halves;
    memcpy(&halves, from, sizeof halves);
    return bits_as<Floats>(widened(halves) << 16);
}

// Not memcpy, for which GCC 12 moves each vector through general registers on ARM.
static inline void store(float* to, Floats value) {
    typedef Floats Anywhere __attribute__((aligned(4), may_alias));
    *reinterpret_cast<Anywhere*>(to) = value;
}

// Rounds to nearest, ties to even. A NaN stays a NaN. AVX512_BF16's instruction flushes subnormal numbers to 0.
static inline void store(bfloat16* to, Floats value) {
#if defined(__AVX512BF16__)
    const __m256bh halves = _mm512_cvtneps_pbh((__m512)value);
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    const bfloat16x4_t halves = vcvt_bf16_f32((float32x4_t)value);
#else
    const Words bits = bits_as<Words>(value);
    Words rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    rounded = value == value ? rounded : Words{} + 0x7FFF;
    const Halves halves = __builtin_convertvector(rounded, Halves);
#endif
    memcpy(to, &halves, sizeof halves);
}

// The first `count` of LANES elements. The other lanes load as `rest` and are not stored.
template <typename T>
static inline Floats load(const T* from, int64_t count, float rest) {
    Floats value = broadcast(rest);
    for (int64_t i = 0; i < count; ++i) value[i] = to_float(from[i]);
    return value;
}

template <typename T>
static inline void store(T* to, Floats value, int64_t count) {
    for (int64_t i = 0; i < count; ++i) from_float(value[i], to[i]);
}

static inline Floats maximum(Floats a, Floats b) {
    return a > b ? a : b;
}

// The lanes of the other half: each lane i gets lane i ^ HALF.
template <int HALF, int... LANE>
static inline Floats swapped_halves(Floats value, std::integer_sequence<int, LANE...>) {
    return shuffled<(LANE ^ HALF)...>(value, value);
}

// Folds the lanes in halves until each holds the whole, always in the same order. In registers: through memory, each
// half would wait for the one before to be stored.
template <typename Fold, int HALF = LANES / 2>
static inline float folded(Floats value, const Fold& fold) {
    value = fold(value, swapped_halves<HALF>(value, std::make_integer_sequence<int, LANES>()));
    if constexpr (HALF > 1) {
        return folded<Fold, HALF / 2>(value, fold);
    } else {
        return value[0];
    }
}

static inline float sum(Floats value) {
    return folded(value, [](Floats a, Floats b) { return a + b; });
}

static inline float maximum(Floats value) {
    return folded(value, [](Floats a, Floats b) { return maximum(a, b); });
}

// e^x. With n = round(x / ln 2) and r = x - n ln 2 in [-ln 2 / 2, ln 2 / 2], it is 2^n p(r), where p is the minimax
// polynomial of degree 6, whose relative error is at most 1.9e-9. Rounded to float32, the result is within 1.4 units in
// the last place (measured on every value in range). It is 0 below float32's normal numbers (x < -87.33), NaN for a
// NaN, and wrong above float32's range (x > 88.7), which no caller reaches.
static inline Floats exponential(Floats x) {
    // Adding 1.5 * 2^23 leaves the nearest integer in the sum's low bits.
    const Floats shifted = x * 1.44269504f + 12582912.0f;
    const Floats n = shifted - 12582912.0f;
    // ln 2 in two parts, the first so short that its product with n is exact even without a fused multiply-add.
    const Floats r = x - n * 0.693359375f - n * -2.12194440e-4f;
    Floats p = r * 0x1.6ab96ep-10f + 0x1.126d1ep-7f;
    p = p * r + 0x1.55589ap-5f;
    p = p * r + 0x1.55540ap-3f;
    p = p * r + 0x1.fffffap-2f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    // n, which is in the low bits, becomes the exponent of 2^n. The product is exact, and NaN for a NaN.
    const Floats power = bits_as<Floats>((bits_as<Words>(shifted) << 23) + bits_as<Words>(broadcast(1.0f)));
    return x < broadcast(-87.33f) ? Floats{} : p * power;
}

}  // namespace bertfast::cpu::BERTFAST_ISA
