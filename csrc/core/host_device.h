// What lets one function be compiled for the host and for the device.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
// Internal linkage: the same header is compiled for several instruction sets, and the linker must never pick one
// set's copy of a function for another's.
#define BERTFAST_HD static inline __host__ __device__
#define BERTFAST_HD_MEMBER __host__ __device__
#else
#define BERTFAST_HD static inline
#define BERTFAST_HD_MEMBER
#endif

// Before a loop over what is to stay in the device's registers, which have no index.
#if defined(__CUDA_ARCH__)
#define BERTFAST_UNROLL _Pragma("unroll")
#else
#define BERTFAST_UNROLL
#endif
