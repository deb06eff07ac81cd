#include "sida/core/thread_pool.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>
#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#endif

namespace sida::inline v0 {

void InlinePool::run(std::size_t tasks, TaskRef task) {
  for (std::size_t i = 0; i < tasks; ++i) task(i);
}

namespace {

using Clock = std::chrono::steady_clock;

void pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

/// Looks until `is_there()`, or for `most`. @return whether it is there.
template <class Condition>
bool spin(Clock::duration most, Condition const& is_there) {
  if (is_there()) return true;
  auto const end = Clock::now() + most;
  do {
    for (int i = 0; i < 16; ++i) {
      pause();
      if (is_there()) return true;
    }
  } while (Clock::now() < end);
  return false;
}

/// Linux may wake a worker on the processor of the thread that wakes it, where both then take turns for milliseconds
/// while another processor is idle. So workers stay off the one that the caller is on.
class Apart {
 public:
  /// Of threads that the calling one starts.
  Apart() {
#ifdef __linux__
    is_able_ = ::sched_getaffinity(0, sizeof(allowed_), &allowed_) == 0 && CPU_COUNT(&allowed_) > 1;
#endif
  }
  void keep([[maybe_unused]] std::vector<std::thread>& workers) {
#ifdef __linux__
    int const cpu = is_able_ ? ::sched_getcpu() : -1;
    if (cpu < 0 || cpu == avoided_ || cpu >= CPU_SETSIZE) return;
    cpu_set_t others = allowed_;
    CPU_CLR(static_cast<std::size_t>(cpu), &others);
    for (auto& worker : workers) ::pthread_setaffinity_np(worker.native_handle(), sizeof(others), &others);
    avoided_ = cpu;
#endif
  }

 private:
#ifdef __linux__
  cpu_set_t allowed_{};
  bool is_able_ = false;
  int avoided_ = -1;
#endif
};

}  // namespace

struct WorkerPool::Impl {
  std::mutex turn;  // one `run` at a time

  std::mutex mutex;
  std::condition_variable work;
  std::condition_variable idle;
  TaskRef const* task = nullptr;
  std::size_t tasks = 0;
  std::size_t asleep = 0;  // workers that have to be woken
  // Changed under the mutex. Looked at without it by those who spin; they look again under it.
  std::atomic<std::uint64_t> generation{0};
  std::atomic<std::size_t> busy{0};  // workers inside the current generation
  std::atomic<bool> stop{false};
  std::atomic<std::size_t> next{0};
  Clock::duration patience{};
  Apart apart;
  std::vector<std::thread> workers;

  void drain(TaskRef const& body, std::size_t count) {
    for (std::size_t i = next.fetch_add(1, std::memory_order_relaxed); i < count;
         i = next.fetch_add(1, std::memory_order_relaxed)) {
      body(i);
    }
  }

  /// Layers follow one another within microseconds, and waking a thread takes longer than that.
  void work_loop() {
    std::uint64_t seen = 0;
    Clock::duration window = patience;
    for (;;) {
      auto const is_wanted = [&] { return stop || generation != seen; };
      // Who looked in vain looks for less long: nothing may come for a while, and others want the processor.
      window = spin(window, is_wanted) ? patience : window / 4;
      std::unique_lock lock(mutex);
      ++asleep;
      work.wait(lock, is_wanted);
      --asleep;
      if (stop) return;
      seen = generation;
      if (task == nullptr) continue;  // this run ended before we woke
      ++busy;
      TaskRef const body = *task;
      std::size_t const count = tasks;
      lock.unlock();
      drain(body, count);
      lock.lock();
      if (--busy == 0) idle.notify_one();
    }
  }
};

WorkerPool::WorkerPool(std::size_t threads, std::chrono::microseconds patience) : impl_(std::make_unique<Impl>()) {
  // Where there are more threads than processors, who spins keeps another from working.
  if (threads <= std::thread::hardware_concurrency()) impl_->patience = patience;
  try {
    impl_->workers.reserve(threads);  // a thread that started always finds its place
    for (std::size_t i = 1; i < threads; ++i) impl_->workers.emplace_back([this] { impl_->work_loop(); });
  } catch (std::exception const&) {  // no more threads, or no memory for one
    // Those that started are the pool: the caller's thread alone would do.
  }
}

WorkerPool::~WorkerPool() {
  {
    std::lock_guard const lock(impl_->mutex);
    impl_->stop = true;
  }
  impl_->work.notify_all();
  for (auto& worker : impl_->workers) worker.join();
}

std::size_t WorkerPool::concurrency() const noexcept { return impl_->workers.size() + 1; }

void WorkerPool::run(std::size_t tasks, TaskRef task) {
  if (tasks == 0) return;
  std::lock_guard const turn(impl_->turn);
  if (tasks == 1 || impl_->workers.empty()) {
    for (std::size_t i = 0; i < tasks; ++i) task(i);
    return;
  }
  bool wakes = false;
  {
    std::lock_guard const lock(impl_->mutex);
    impl_->task = &task;
    impl_->tasks = tasks;
    impl_->next.store(0, std::memory_order_relaxed);
    ++impl_->generation;
    wakes = impl_->asleep > 0;
  }
  if (wakes) {
    impl_->apart.keep(impl_->workers);
    impl_->work.notify_all();
  }
  impl_->drain(task, tasks);
  auto const is_done = [&] { return impl_->busy == 0; };
  {
    std::lock_guard const lock(impl_->mutex);
    impl_->task = nullptr;  // nobody begins any more
  }
  static_cast<void>(spin(impl_->patience, is_done));
  std::unique_lock lock(impl_->mutex);
  impl_->idle.wait(lock, is_done);
}

}  // namespace sida::inline v0
