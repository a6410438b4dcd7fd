// One source, several instruction sets: every file in csrc/cpu is compiled once for each (CMakeLists.txt), and
// BERTFAST_ISA names the namespace of its functions. BERTFAST_DECLARE declares a function in all of them.
#pragma once

// EACH(set, arguments) for each of this architecture's sets, the least first.
#if defined(__x86_64__)
#define BERTFAST_EACH_ISA(EACH, ...) \
    EACH(portable, __VA_ARGS__)      \
    EACH(avx2, __VA_ARGS__)          \
    EACH(avx512, __VA_ARGS__)        \
    EACH(avx512_bf16, __VA_ARGS__)   \
    EACH(amx, __VA_ARGS__)
#elif defined(__aarch64__)
#define BERTFAST_EACH_ISA(EACH, ...) \
    EACH(neon, __VA_ARGS__)          \
    EACH(neon_bf16, __VA_ARGS__)
#else
#define BERTFAST_EACH_ISA(EACH, ...) EACH(portable, __VA_ARGS__)
#endif

#define BERTFAST_DECLARE_IN(ISA, ...) \
    namespace bertfast::cpu::ISA {    \
    __VA_ARGS__;                      \
    }
#define BERTFAST_DECLARE(...) BERTFAST_EACH_ISA(BERTFAST_DECLARE_IN, __VA_ARGS__)
