// Macros that compile one function for both the host and the device.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
// Internal linkage: the same header is compiled for several instruction sets, and the linker must never replace one
// set's copy of a function by another's.
#define BERTFAST_HD static inline __host__ __device__
#define BERTFAST_HD_MEMBER __host__ __device__
#else
#define BERTFAST_HD static inline
#define BERTFAST_HD_MEMBER
#endif

// Unrolls a loop over values that must stay in registers on the device: registers cannot be indexed.
#if defined(__CUDA_ARCH__)
#define BERTFAST_UNROLL _Pragma("unroll")
#else
#define BERTFAST_UNROLL
#endif
