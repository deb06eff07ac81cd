#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace engine {

/// The engine's thread pool: parallel loops, one at a time.
class Threads {
 public:
  /// `count` threads, the calling one included.
  explicit Threads(unsigned count);
  ~Threads();
  Threads(Threads const&) = delete;
  Threads& operator=(Threads const&) = delete;

  std::size_t count() const noexcept { return workers_.size() + 1; }
  /// Calls body(i) for each i below `tasks`, on all threads; returns when all are done. `body` does not throw.
  void parallel_for(std::size_t tasks, std::function<void(std::size_t)> const& body);

 private:
  void work();
  void take_tasks();

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable begin_, end_;
  std::function<void(std::size_t)> const* body_ = nullptr;
  std::size_t tasks_ = 0;
  std::atomic<std::size_t> next_{0};
  std::size_t busy_ = 0;    // workers that have not ended this loop
  std::uint64_t loop_ = 0;  // number of this loop
  bool stopping_ = false;
};

}  // namespace engine
