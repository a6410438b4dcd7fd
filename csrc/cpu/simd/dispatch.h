// The active instruction set: the processor's best, unless a test chooses another. Only code compiled for the baseline
// processor may include this header.
#pragma once

#include "cpu/simd/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__linux__) && defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace bertfast::cpu {

#define BERTFAST_ENUMERATOR(ISA, ...) ISA,
enum class Isa { BERTFAST_EACH_ISA(BERTFAST_ENUMERATOR) };

#define BERTFAST_NAME(ISA, ...) #ISA,
constexpr const char* ISA_NAMES[] = {BERTFAST_EACH_ISA(BERTFAST_NAME)};

// Whether the processor multiplies tiles of bfloat16. Clang's __builtin_cpu_supports knows this only since version 18.
inline bool has_tiles() {
#if defined(__x86_64__)
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && edx >> 22 & 1;  // AMX-BF16
#else
    return false;
#endif
}

// Asks Linux for AMX's tiles, and returns whether this process may use them.
inline bool may_use_tiles() {
#if defined(__linux__) && defined(__x86_64__)
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return false;
#endif
}

// Whether the processor multiplies bfloat16 itself.
inline bool has_bf16() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16");
#elif defined(__linux__) && defined(__aarch64__)
    return getauxval(AT_HWCAP2) & HWCAP2_BF16;
#elif defined(__APPLE__)
    int has = 0;
    size_t size = sizeof has;
    return sysctlbyname("hw.optional.arm.FEAT_BF16", &has, &size, nullptr, 0) == 0 && has;
#else
    return false;
#endif
}

inline Isa best_isa() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
        if (!has_bf16()) return Isa::avx512;
        return has_tiles() && may_use_tiles() ? Isa::amx : Isa::avx512_bf16;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
        return Isa::avx2;
    }
    return Isa::portable;
#elif defined(__aarch64__)
    return has_bf16() ? Isa::neon_bf16 : Isa::neon;
#else
    return Isa::portable;
#endif
}

inline Isa& active_isa() {
    static Isa isa = best_isa();
    return isa;
}

}  // namespace bertfast::cpu

// BERTFAST_DISPATCH(function(arguments)) calls the active set's function, which returns nothing.
#define BERTFAST_CALL_IF_ACTIVE(ISA, ...) \
    ::bertfast::cpu::active_isa() == ::bertfast::cpu::Isa::ISA ? ::bertfast::cpu::ISA::__VA_ARGS__:
#define BERTFAST_DISPATCH(...) (BERTFAST_EACH_ISA(BERTFAST_CALL_IF_ACTIVE, __VA_ARGS__) static_cast<void>(0))
