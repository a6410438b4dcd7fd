// One source, several instruction sets: every file in csrc/cpu is compiled once for each (CMakeLists.txt), and
// BERTFAST_ISA names the namespace of its functions. BERTFAST_DECLARE declares a function in all of them.
#pragma once

#if defined(__x86_64__)
#define BERTFAST_DECLARE(...)              \
    namespace bertfast::cpu::portable {    \
    __VA_ARGS__;                           \
    }                                      \
    namespace bertfast::cpu::avx2 {        \
    __VA_ARGS__;                           \
    }                                      \
    namespace bertfast::cpu::avx512 {      \
    __VA_ARGS__;                           \
    }                                      \
    namespace bertfast::cpu::avx512_bf16 { \
    __VA_ARGS__;                           \
    }                                      \
    namespace bertfast::cpu::amx {         \
    __VA_ARGS__;                           \
    }
#else
#define BERTFAST_DECLARE(...)           \
    namespace bertfast::cpu::portable { \
    __VA_ARGS__;                        \
    }
#endif
