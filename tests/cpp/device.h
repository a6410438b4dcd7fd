// A device's memory. device_cuda.cpp implements it on a CUDA device, device_stand_in.cpp on the host, with the CPU's
// kernels behind the CUDA launchers' names, so that the self-test itself is tested without a GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bertfast::device {

// Ends the program with exit status 77, which means skipped, if there is no device.
void require();
void* allocate(size_t bytes);  // filled with 0xFF: NaN, or -1
void release(void* address);
void to_device(void* to, const void* from, size_t bytes);
void to_host(void* to, const void* from, size_t bytes);  // after all launches
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
