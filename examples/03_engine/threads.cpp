#include "threads.hpp"

namespace engine {

Threads::Threads(unsigned count) {
  for (unsigned i = 1; i < count; ++i) workers_.emplace_back([this] { work(); });
}

Threads::~Threads() {
  {
    std::lock_guard const lock(mutex_);
    stopping_ = true;
  }
  begin_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Threads::parallel_for(std::size_t tasks, std::function<void(std::size_t)> const& body) {
  {
    std::lock_guard const lock(mutex_);
    body_ = &body;
    tasks_ = tasks;
    next_ = 0;
    busy_ = workers_.size();
    ++loop_;
  }
  begin_.notify_all();
  take_tasks();
  std::unique_lock lock(mutex_);
  end_.wait(lock, [this] { return busy_ == 0; });
}

void Threads::work() {
  std::uint64_t seen = 0;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      begin_.wait(lock, [&] { return stopping_ || loop_ != seen; });
      if (stopping_) return;
      seen = loop_;
    }
    take_tasks();
    std::lock_guard const lock(mutex_);
    if (--busy_ == 0) end_.notify_one();
  }
}

void Threads::take_tasks() {
  for (std::size_t task = next_++; task < tasks_; task = next_++) (*body_)(task);
}

}  // namespace engine
