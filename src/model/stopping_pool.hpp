#pragma once

#include <cstddef>
#include <stop_token>
#include <utility>

#include "sida/core/thread_pool.hpp"

namespace sida::inline v0::model_detail {

/// Another pool's threads. Once a stop is requested, tasks are left out: what they would have written is not there.
class StoppingPool final : public ThreadPool {
 public:
  StoppingPool(ThreadPool& pool, std::stop_token stop) noexcept : pool_(pool), stop_(std::move(stop)) {}

  std::size_t concurrency() const noexcept override { return pool_.concurrency(); }
  void run(std::size_t tasks, TaskRef task) override {
    auto const unless_stopped = [&](std::size_t i) {
      if (!stop_.stop_requested()) task(i);
    };
    pool_.run(tasks, unless_stopped);
  }

 private:
  ThreadPool& pool_;
  std::stop_token stop_;
};

}  // namespace sida::inline v0::model_detail
