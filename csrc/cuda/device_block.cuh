// A block of threads that works in phases with a barrier after each. HostBlock in the tests does the same on the host.
#pragma once

#include <cuda_runtime.h>

namespace bertfast::cuda {

template <typename Registers>
struct DeviceBlock {
    Registers registers;

    template <typename Phase>
    __device__ void each(const Phase& phase) {
        // Hides the number from the compiler, which would otherwise keep values that depend on it in registers over all
        // phases.
        int thread = static_cast<int>(threadIdx.x);
        asm volatile("" : "+r"(thread));
        phase(thread, registers);
        __syncthreads();
    }

    // Starts to copy 4 or 16 bytes to shared memory, or zeros unless `is_there`. Other threads see them after the
    // barrier that follows this thread's next `wait`.
    template <typename T>
    __device__ void copy(int, bool is_there, const T* from, T* to) const {
        static_assert(sizeof(T) == 4 || sizeof(T) == 16);
#if __CUDA_ARCH__ >= 800
        const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
        const int bytes = is_there ? sizeof(T) : 0;  // the rest is filled with zeros, without a branch
        if constexpr (sizeof(T) == 16) {
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes)
                         : "memory");
        } else {
            asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(from), "r"(bytes)
                         : "memory");
        }
#else
        *to = is_there ? *from : T{};
#endif
    }

    __device__ void wait(int thread) const {
#if __CUDA_ARCH__ >= 800
        asm volatile("cp.async.wait_all;" ::: "memory");
#endif
        publish(thread);
    }

    // Makes the thread's writes to shared memory visible to wgmma after the next barrier.
    __device__ void publish(int) const {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
    }
};

}  // namespace bertfast::cuda
