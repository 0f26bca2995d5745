// Memory that a thread keeps between calls, so that no kernel allocates.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace fastchat {

class Scratch {
 public:
  // Room for so many floats, aligned to a cache line; what it held is lost.
  float* floats(int64_t count) {
    if (count > capacity_) {
      capacity_ = (count + 1023) / 1024 * 1024;
      memory_.reset(static_cast<float*>(std::aligned_alloc(4096, capacity_ * sizeof(float))));
      if (!memory_) throw std::bad_alloc();
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(float* memory) const { std::free(memory); }
  };
  std::unique_ptr<float, Free> memory_;
  int64_t capacity_ = 0;
};

}  // namespace fastchat
