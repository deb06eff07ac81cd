#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <type_traits>

#include "sida/core/api.hpp"

namespace sida::inline v0 {

/// Non-owning reference to a callable `void(std::size_t task)`. Valid for one call.
class TaskRef {
 public:
  template <class F>
  requires(std::is_invocable_v<F&, std::size_t> && !std::is_same_v<std::remove_cvref_t<F>, TaskRef>)
      TaskRef(F& callable)
  noexcept  // NOLINT(google-explicit-constructor)
      : object_(const_cast<void*>(static_cast<void const*>(&callable))),
        invoke_([](void* object, std::size_t task) { (*static_cast<F*>(object))(task); }) {}
  void operator()(std::size_t task) const { invoke_(object_, task); }

 private:
  void* object_;
  void (*invoke_)(void*, std::size_t);
};

/// Compute threads that the caller lends. An engine derives from this to give its own pool.
/// `run` is called from one thread at a time per pool unless the implementation says otherwise.
class SIDA_API ThreadPool {
 public:
  virtual ~ThreadPool() = default;
  /// How many tasks may run at the same moment, the calling thread included; at least 1.
  virtual std::size_t concurrency() const noexcept = 0;
  /// Calls `task(i)` once for each i in [0, tasks), on any thread and in any order, and returns when all are
  /// done. Tasks do not throw and do not call `run`. sida's own want 64 KiB of stack.
  virtual void run(std::size_t tasks, TaskRef task) = 0;
};

/// Runs every task on the calling thread.
class SIDA_API InlinePool final : public ThreadPool {
 public:
  std::size_t concurrency() const noexcept override { return 1; }
  void run(std::size_t tasks, TaskRef task) override;
};

/// A pool of its own: `threads` - 1 workers beside the calling thread, or as many as the system gives, which
/// `concurrency` tells. `run` may be called from several threads; the calls take turns. Who has nothing to do looks for
/// up to `patience` whether something comes before it sleeps, less where it lately looked in vain; not at all where
/// there are more threads than processors that the maker may run on. On Linux a few workers are woken on other
/// processors than the caller's; the maker's affinity is theirs again then, whatever else was set for them.
class SIDA_API WorkerPool final : public ThreadPool {
 public:
  explicit WorkerPool(std::size_t threads, std::chrono::microseconds patience = std::chrono::microseconds(100));
  ~WorkerPool() override;
  WorkerPool(WorkerPool const&) = delete;
  WorkerPool& operator=(WorkerPool const&) = delete;
  std::size_t concurrency() const noexcept override;
  void run(std::size_t tasks, TaskRef task) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sida::inline v0
