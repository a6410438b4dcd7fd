// How the C library manages this process's memory.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>

#include "bindings/module.h"

#if defined(__GLIBC__)
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace bertfast::bindings {

namespace {

#if defined(__GLIBC__)

// Makes room on top of the heap for half of the machine's memory, in huge pages. It is address space, no memory, until
// it is used. Without it, or where the system has no huge pages, the heap grows in small ones.
void reserve_huge_pages() {
    constexpr size_t PAGE = 4096;  // the system's; where it is larger, so are huge pages, by far
    int overcommit = 0;            // 2: the system counts address space as if it were used
    std::ifstream("/proc/sys/vm/overcommit_memory") >> overcommit;
    if (sysconf(_SC_PAGESIZE) != PAGE || overcommit == 2) return;
    const size_t bytes = PAGE * static_cast<size_t>(sysconf(_SC_PHYS_PAGES) / 2);
    void* block = std::malloc(bytes);
    if (block == nullptr) return;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(block) + PAGE - 1) / PAGE * PAGE;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(block) + bytes) / PAGE * PAGE;
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
    std::free(block);
}

// Tells the C library to keep freed memory for later allocations, in one heap for all threads. A training step frees
// and allocates the same large tensors again and again. If they went back to the kernel each time, page faults would
// cost up to half of the step. Without fast bins, since every large tensor that is freed would have them emptied.
void keep_freed_memory() {
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, -1);
    mallopt(M_TOP_PAD, 64 << 20);
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MXFAST, 0);
    static const bool once = (reserve_huge_pages(), true);
    static_cast<void>(once);
}

#else

void keep_freed_memory() {}

#endif

}  // namespace

void bind_heap(pybind11::module_& module) {
    module.def("keep_freed_memory", &keep_freed_memory);
}

}  // namespace bertfast::bindings
