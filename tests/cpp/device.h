// Memory of a device, plainly. device_cuda.cpp is the CUDA device's; device_stand_in.cpp the host's, with the CPU's
// kernels in the CUDA launchers' place, so that what uses this can be tested where there is no GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bertfast::device {

// Ends the program with exit status 77, which means skipped, where there is none.
void require();
void* allocate(size_t bytes);  // 0xFF in each: a NaN, or -1
void release(void* address);
void to_device(void* to, const void* from, size_t bytes);
void to_host(void* to, const void* from, size_t bytes);  // after all that was launched
const char* name();

// An array on the device.
template <typename T>
class Array {
  public:
    explicit Array(size_t size) : address_(static_cast<T*>(allocate(size * sizeof(T)))), size_(size) {}
    Array(const std::vector<T>& values) : Array(values.size()) { to_device(address_, values.data(), bytes()); }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    ~Array() { release(address_); }

    T* data() const { return address_; }

    std::vector<T> values() const {
        std::vector<T> values(size_);
        to_host(values.data(), address_, bytes());
        return values;
    }

  private:
    size_t bytes() const { return size_ * sizeof(T); }

    T* address_;
    size_t size_;
};

}  // namespace bertfast::device
