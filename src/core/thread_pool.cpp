#include "sida/core/thread_pool.hpp"

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace sida::inline v0 {

void InlinePool::run(std::size_t tasks, TaskRef task) {
  for (std::size_t i = 0; i < tasks; ++i) task(i);
}

struct WorkerPool::Impl {
  std::mutex turn;  // one `run` at a time

  std::mutex mutex;
  std::condition_variable work;
  std::condition_variable idle;
  TaskRef const* task = nullptr;
  std::size_t tasks = 0;
  std::uint64_t generation = 0;
  std::size_t busy = 0;  // workers inside the current generation
  bool stop = false;
  std::atomic<std::size_t> next{0};
  std::vector<std::thread> workers;

  void drain(TaskRef const& body, std::size_t count) {
    for (std::size_t i = next.fetch_add(1, std::memory_order_relaxed); i < count;
         i = next.fetch_add(1, std::memory_order_relaxed)) {
      body(i);
    }
  }

  void work_loop() {
    std::uint64_t seen = 0;
    std::unique_lock lock(mutex);
    for (;;) {
      work.wait(lock, [&] { return stop || generation != seen; });
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

WorkerPool::WorkerPool(std::size_t threads) : impl_(std::make_unique<Impl>()) {
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
  {
    std::lock_guard const lock(impl_->mutex);
    impl_->task = &task;
    impl_->tasks = tasks;
    impl_->next.store(0, std::memory_order_relaxed);
    ++impl_->generation;
  }
  impl_->work.notify_all();
  impl_->drain(task, tasks);
  std::unique_lock lock(impl_->mutex);
  impl_->task = nullptr;
  impl_->idle.wait(lock, [&] { return impl_->busy == 0; });
}

}  // namespace sida::inline v0
