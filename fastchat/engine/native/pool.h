// Threads that share the items of one loop at a time. Knows nothing of what the items are.
//
// Work is handed out item by item through one atomic word, so whoever is free takes the next. A
// worker that finds nothing spins for some tens of microseconds and then sleeps in the kernel;
// whoever starts a loop never waits for a worker that has not yet woken up.
#pragma once

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

namespace fastchat {

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class Pool {
 public:
  // threads: how many work on a loop, the caller among them.
  explicit Pool(int threads) {
    count_forks();
    start(threads);
  }
  ~Pool() { stop(); }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls work(item) for every item in [0, items), in any order, on any of the threads.
  // A call from inside a loop, or while another thread runs one, does all items by itself.
  template <class Work>
  void run(int64_t items, Work&& work) {
    using Plain = std::remove_reference_t<Work>;
    if (forks_ != forks().load(std::memory_order_relaxed)) restart();
    if (items <= 1 || workers_.empty() || busy_.exchange(true, std::memory_order_acquire)) {
      for (int64_t item = 0; item < items; ++item) work(item);
      return;
    }
    call_ = [](void* context, int64_t item) { (*static_cast<Plain*>(context))(item); };
    context_ = const_cast<void*>(static_cast<const void*>(&work));
    items_ = items;
    done_.store(0, std::memory_order_relaxed);
    left_.store(items, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) wake();
    take_items();
    for (int spins = 0; done_.load(std::memory_order_acquire) != items; ++spins) {
      if (spins < 4096) relax();
      else std::this_thread::yield();
    }
    busy_.store(false, std::memory_order_release);
  }

 private:
  static constexpr auto kSpin = std::chrono::microseconds(60);

  // A forked child has this memory but none of the threads: the count tells it so.
  static std::atomic<int>& forks() {
    static std::atomic<int> count{0};
    return count;
  }
  static void count_forks() {
    static const int registered =
        pthread_atfork(nullptr, nullptr, [] { forks().fetch_add(1, std::memory_order_relaxed); });
    (void)registered;
  }

  void start(int threads) {
    forks_ = forks().load();
    stopping_ = false;
    for (int index = 1; index < threads; ++index) workers_.emplace_back([this] { serve(); });
  }

  void stop() {
    if (forks_ != forks().load()) {
      forget();
      return;
    }
    stopping_ = true;
    wake();
    for (auto& worker : workers_) worker.join();
    workers_.clear();
  }

  void restart() {
    const int before = threads();
    forget();
    left_ = 0;
    sleepers_ = 0;
    busy_ = false;
    start(before);
  }

  // The handles of threads that died in a fork can be neither joined nor destroyed.
  void forget() { new std::vector<std::thread>(std::exchange(workers_, {})); }

  void wake() {
    epoch_.fetch_add(1, std::memory_order_seq_cst);
    epoch_.notify_all();
  }

  // An item that was taken keeps its loop alive, so the fields of the loop may be read after it.
  void take_items() {
    int64_t mine = 0;
    int64_t left = left_.load(std::memory_order_acquire);
    while (left > 0) {
      if (!left_.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel)) continue;
      call_(context_, items_ - left);
      ++mine;
      left = left_.load(std::memory_order_acquire);
      if (left == 0) break;
    }
    if (mine > 0) done_.fetch_add(mine, std::memory_order_acq_rel);
  }

  void serve() {
    while (!stopping_.load(std::memory_order_relaxed)) {
      if (spin()) {
        take_items();
        continue;
      }
      const int epoch = epoch_.load(std::memory_order_seq_cst);
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      if (left_.load(std::memory_order_seq_cst) == 0 && !stopping_.load()) epoch_.wait(epoch);
      sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    }
  }

  bool spin() const {
    const auto until = std::chrono::steady_clock::now() + kSpin;
    do {
      for (int turn = 0; turn < 32; ++turn) {
        if (left_.load(std::memory_order_acquire) > 0) return true;
        relax();
      }
    } while (std::chrono::steady_clock::now() < until);
    return false;
  }

  std::vector<std::thread> workers_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> busy_{false};
  int forks_ = 0;
  void (*call_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  int64_t items_ = 0;
  alignas(64) std::atomic<int64_t> left_{0};
  alignas(64) std::atomic<int64_t> done_{0};
  alignas(64) std::atomic<int> epoch_{0};
  std::atomic<int> sleepers_{0};
};

}  // namespace fastchat
