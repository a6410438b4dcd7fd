// The instruction set that runs: the processor's best, unless a test chooses another. Only code that is compiled for
// the baseline processor may include this header.
#pragma once

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace bertfast::cpu {

enum class Isa { portable, avx2, avx512, avx512_bf16, amx };

// Asks Linux for AMX's tiles, and returns whether this process may use them.
inline bool may_use_tiles() {
#if defined(__x86_64__) && defined(__linux__)
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return false;
#endif
}

inline Isa best_isa() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
        if (!__builtin_cpu_supports("avx512bf16")) return Isa::avx512;
        return __builtin_cpu_supports("amx-bf16") && may_use_tiles() ? Isa::amx : Isa::avx512_bf16;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
        return Isa::avx2;
    }
#endif
    return Isa::portable;
}

inline Isa& active_isa() {
    static Isa isa = best_isa();
    return isa;
}

}  // namespace bertfast::cpu

// BERTFAST_DISPATCH(function(arguments)) calls the active set's function.
#if defined(__x86_64__)
#define BERTFAST_DISPATCH(...)                                                                                        \
    (::bertfast::cpu::active_isa() == ::bertfast::cpu::Isa::amx           ? ::bertfast::cpu::amx::__VA_ARGS__         \
     : ::bertfast::cpu::active_isa() == ::bertfast::cpu::Isa::avx512_bf16 ? ::bertfast::cpu::avx512_bf16::__VA_ARGS__ \
     : ::bertfast::cpu::active_isa() == ::bertfast::cpu::Isa::avx512      ? ::bertfast::cpu::avx512::__VA_ARGS__      \
     : ::bertfast::cpu::active_isa() == ::bertfast::cpu::Isa::avx2        ? ::bertfast::cpu::avx2::__VA_ARGS__        \
                                                                          : ::bertfast::cpu::portable::__VA_ARGS__)
#else
#define BERTFAST_DISPATCH(...) (::bertfast::cpu::portable::__VA_ARGS__)
#endif
