#include "sida/core/thread_pool.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
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
  if (most <= Clock::duration::zero()) return false;
  auto const end = Clock::now() + most;
  do {
    for (int i = 0; i < 16; ++i) {
      pause();
      if (is_there()) return true;
    }
  } while (Clock::now() < end);
  return false;
}

/// The processors that a thread, and those that it starts, may run on.
class Processors {
 public:
  Processors() {
#ifdef __linux__
    is_known_ = ::sched_getaffinity(0, sizeof(all_), &all_) == 0;
#endif
  }
  std::size_t count() const noexcept {
#ifdef __linux__
    if (is_known_) return static_cast<std::size_t>(CPU_COUNT(&all_));
#endif
    return std::thread::hardware_concurrency();
  }
#ifdef __linux__
  /// Lets `thread` run anywhere but where the calling one is. @return whether it is so.
  bool keep_away(pthread_t thread) const noexcept {
    int const cpu = ::sched_getcpu();
    if (!is_known_ || cpu < 0 || cpu >= CPU_SETSIZE || CPU_COUNT(&all_) < 2) return false;
    cpu_set_t others = all_;
    CPU_CLR(static_cast<std::size_t>(cpu), &others);
    return ::pthread_setaffinity_np(thread, sizeof(others), &others) == 0;
  }
  void let_go() const noexcept { static_cast<void>(::pthread_setaffinity_np(::pthread_self(), sizeof(all_), &all_)); }
#endif

 private:
#ifdef __linux__
  cpu_set_t all_{};
  bool is_known_ = false;
#endif
};

/// A thread of a pool. The flags are under the pool's mutex.
struct Worker {
  std::thread thread;
  bool is_asleep = false;
  bool is_kept_away = false;
};

}  // namespace

struct WorkerPool::Impl {
  static constexpr std::size_t kFew = 8;  // whose waking may take a system call each

  std::mutex turn;  // one `run` at a time

  std::mutex mutex;
  std::condition_variable work;
  std::condition_variable idle;
  TaskRef const* task = nullptr;
  std::size_t tasks = 0;
  // Changed under the mutex. Looked at without it by those who spin; they look again under it.
  std::atomic<std::uint64_t> generation{0};
  std::atomic<std::size_t> busy{0};  // workers inside the current generation
  std::atomic<bool> stop{false};
  std::atomic<std::size_t> next{0};
  Clock::duration patience{};
  Processors processors;
  std::vector<Worker> workers;

  void drain(TaskRef const& body, std::size_t count) {
    for (std::size_t i = next.fetch_add(1, std::memory_order_relaxed); i < count;
         i = next.fetch_add(1, std::memory_order_relaxed)) {
      body(i);
    }
  }

  /// Under the mutex: whether a worker has to be woken. Linux may wake it on the processor of who wakes it, where both
  /// then take turns for milliseconds while another processor is idle; so it is woken anywhere else.
  bool prepare_to_wake() {
    bool is_any_asleep = false;
    for (Worker& worker : workers) {
      if (!worker.is_asleep) continue;
      is_any_asleep = true;
#ifdef __linux__
      bool const has_place = workers.size() <= kFew && workers.size() < processors.count();
      if (has_place) worker.is_kept_away = processors.keep_away(worker.thread.native_handle());
#endif
    }
    return is_any_asleep;
  }

  void sleep(std::unique_lock<std::mutex>& lock, Worker& self, std::uint64_t seen) {
    self.is_asleep = true;
    work.wait(lock, [&] { return stop || generation != seen; });
    self.is_asleep = false;
#ifdef __linux__
    if (std::exchange(self.is_kept_away, false)) processors.let_go();  // it stays where it is, for now
#endif
  }

  /// Layers follow one another within microseconds, and waking a thread takes longer than that. Who looked in vain
  /// looks for less long the next time: nothing may come for a while, and others want the processor.
  void work_loop(Worker& self) {
    std::uint64_t seen = 0;
    Clock::duration window = patience;
    for (;;) {
      bool const found = spin(window, [&] { return stop || generation != seen; });
      std::unique_lock lock(mutex);
      auto const began = Clock::now();
      if (!found) sleep(lock, self, seen);
      if (stop) return;
      window = found || Clock::now() - began < patience ? patience : std::max(window / 4, patience / 16);
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
  if (threads <= impl_->processors.count()) impl_->patience = patience;
  try {
    impl_->workers.reserve(threads);  // workers stay where they are, and a thread that started finds its place
    for (std::size_t i = 1; i < threads; ++i) {
      Worker& worker = impl_->workers.emplace_back();
      try {
        worker.thread = std::thread([this, &worker] { impl_->work_loop(worker); });
      } catch (std::exception const&) {
        impl_->workers.pop_back();
        throw;
      }
    }
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
  for (auto& worker : impl_->workers) worker.thread.join();
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
    wakes = impl_->prepare_to_wake();
  }
  if (wakes) impl_->work.notify_all();
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
