#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "sida/core/result.hpp"

namespace sida::inline v0 {

/// Hands values from one thread to another, at most `capacity` at a time. Either side may stop first and say why:
/// the producer by `close`, anybody by `cancel`; the other side is then woken and told. Thread-safe.
template <class T>
class BoundedQueue {
 public:
  /// A capacity of 0 counts as 1.
  explicit BoundedQueue(std::size_t capacity) : capacity_(capacity == 0 ? 1 : capacity) {}
  BoundedQueue(BoundedQueue const&) = delete;
  BoundedQueue& operator=(BoundedQueue const&) = delete;

  /// Blocks while the queue is full. With a single producer, the next `push` doesn't block.
  /// @return what `cancel` was given; invalid_argument after `close`.
  Status wait_for_room() {
    std::unique_lock lock(mutex_);
    return wait_for_room(lock);
  }

  /// Blocks while the queue is full. @return as `wait_for_room`; `value` is lost then.
  Status push(T value) {
    std::unique_lock lock(mutex_);
    if (Status status = wait_for_room(lock); !status) return status;
    values_.push_back(std::move(value));
    lock.unlock();
    filled_.notify_all();
    return {};
  }

  /// Blocks while the queue is empty and open. @return the oldest value; nothing at the end; what `close` or `cancel`
  /// was given.
  Result<std::optional<T>> pop() {
    std::unique_lock lock(mutex_);
    filled_.wait(lock, [this] { return cancelled_ || closed_ || !values_.empty(); });
    if (cancelled_ || values_.empty()) {
      if (!end_) return end_.error();
      return std::optional<T>();
    }
    std::optional<T> value(std::move(values_.front()));
    values_.pop_front();
    lock.unlock();
    emptied_.notify_all();
    return value;
  }

  /// Blocks until the queue is full, closed or cancelled.
  void wait_until_full() {
    std::unique_lock lock(mutex_);
    filled_.wait(lock, [this] { return cancelled_ || closed_ || values_.size() >= capacity_; });
  }

  /// No more values will come: `pop` gives what is left, and then nothing, or the error `why`. The first call counts.
  void close(Status why = {}) {
    {
      std::lock_guard const lock(mutex_);
      if (cancelled_ || closed_) return;
      closed_ = true;
      end_ = std::move(why);
    }
    filled_.notify_all();
    emptied_.notify_all();
  }

  /// Stops both sides now: values under way are dropped, every blocked and later call returns `why`. The first call
  /// counts, and it overrides `close` unless that gave an error.
  void cancel(Error why) {
    std::deque<T> dropped;  // destroyed after the lock is given back
    {
      std::lock_guard const lock(mutex_);
      if (cancelled_) return;
      cancelled_ = true;
      if (end_) end_ = std::move(why);
      dropped.swap(values_);
    }
    filled_.notify_all();
    emptied_.notify_all();
  }

  std::size_t size() const {
    std::lock_guard const lock(mutex_);
    return values_.size();
  }

 private:
  Status wait_for_room(std::unique_lock<std::mutex>& lock) {
    emptied_.wait(lock, [this] { return cancelled_ || closed_ || values_.size() < capacity_; });
    if (cancelled_) return end_;
    if (closed_) return {Errc::invalid_argument, "push to a closed queue"};
    return {};
  }

  std::size_t const capacity_;
  mutable std::mutex mutex_;
  std::condition_variable filled_;
  std::condition_variable emptied_;
  std::deque<T> values_;
  bool closed_ = false;
  bool cancelled_ = false;
  Status end_;  // why it was closed or cancelled; success at an ordinary end
};

}  // namespace sida::inline v0
