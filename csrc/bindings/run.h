// BERTFAST_RUN(device, cpu_call, cuda_call) runs a kernel on a device, with Python's lock released: on a CPU cpu_call,
// a function of cpu/kernels.h with its arguments, and on a CUDA device cuda_call, one of cuda/launchers.h.
// BERTFAST_LAUNCH(cuda_call) runs a kernel that only CUDA has.
#pragma once

#include <stdexcept>
#include <string>

#include "bindings/tensor.h"
#include "cpu/kernels.h"
#include "cpu/simd/dispatch.h"
#include "cuda/launchers.h"

namespace bertfast::bindings {

#if defined(BERTFAST_HAS_CUDA)
constexpr bool HAS_CUDA = true;
#else
constexpr bool HAS_CUDA = false;
#endif

// `call`: a function and its arguments. The message names the function.
[[noreturn]] inline void throw_no_cuda(const std::string& call) {
    throw std::runtime_error(call.substr(0, call.find('(')) + ": this build of bertfast has no CUDA kernels");
}

}  // namespace bertfast::bindings

#define BERTFAST_LAUNCH(cuda_call)                           \
    do {                                                     \
        if constexpr (::bertfast::bindings::HAS_CUDA) {      \
            ::bertfast::cuda::cuda_call;                     \
        } else {                                             \
            ::bertfast::bindings::throw_no_cuda(#cuda_call); \
        }                                                    \
    } while (false)

#define BERTFAST_RUN(device, cpu_call, cuda_call)      \
    do {                                               \
        const ::pybind11::gil_scoped_release unlocked; \
        if ((device).cuda) {                           \
            BERTFAST_LAUNCH(cuda_call);                \
        } else {                                       \
            BERTFAST_DISPATCH(cpu_call);               \
        }                                              \
    } while (false)
