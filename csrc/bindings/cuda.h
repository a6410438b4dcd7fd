// BERTFAST_CUDA("op", f(x)) calls bertfast::cuda::f(x), where the build has CUDA kernels.
#pragma once

#include <stdexcept>

#if defined(BERTFAST_HAS_CUDA)
#define BERTFAST_CUDA(op, ...) bertfast::cuda::__VA_ARGS__
#else
#define BERTFAST_CUDA(op, ...) throw std::runtime_error(op ": this build of bertfast has no CUDA kernels")
#endif
