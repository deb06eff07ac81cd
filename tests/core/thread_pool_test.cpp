#include "sida/core/thread_pool.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <numeric>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace {

using sida::InlinePool;
using sida::WorkerPool;

TEST(InlinePool, RunsInOrderOnTheCaller) {
  InlinePool pool;
  std::vector<std::size_t> order;
  auto task = [&](std::size_t i) { order.push_back(i); };
  pool.run(4, task);
  EXPECT_EQ(order, (std::vector<std::size_t>{0, 1, 2, 3}));
  EXPECT_EQ(pool.concurrency(), 1U);
}

TEST(WorkerPool, RunsEachTaskOnce) {
  for (std::size_t threads : {1U, 2U, 5U}) {
    WorkerPool pool(threads);
    EXPECT_EQ(pool.concurrency(), threads);
    for (std::size_t tasks : {0U, 1U, 2U, 7U, 1000U}) {
      std::vector<std::atomic<int>> runs(tasks);
      auto task = [&](std::size_t i) { runs[i].fetch_add(1, std::memory_order_relaxed); };
      pool.run(tasks, task);
      for (std::size_t i = 0; i < tasks; ++i) ASSERT_EQ(runs[i].load(std::memory_order_relaxed), 1) << i;
    }
  }
}

// Plain writes: a caller may read what tasks wrote once `run` has returned, and a task what the caller wrote before.
TEST(WorkerPool, OrdersWritesAroundRun) {
  WorkerPool pool(4);
  std::vector<int> data(64);
  for (int round = 1; round <= 500; ++round) {
    auto task = [&](std::size_t i) { data[i] += round; };
    pool.run(data.size(), task);
    ASSERT_EQ(std::accumulate(data.begin(), data.end(), 0), 64 * round * (round + 1) / 2);
  }
}

// As many threads as processors: workers look for work before they sleep, and find it or not.
TEST(WorkerPool, RunsEverythingWhateverTheGapsBetweenRuns) {
  for (auto const patience : {std::chrono::microseconds(0), std::chrono::microseconds(100)}) {
    WorkerPool pool(2, patience);
    std::vector<int> data(24);
    int const gaps[] = {0, 0, 5, 30, 90, 120, 400, 0, 2000};  // microseconds
    int rounds = 0;
    for (int i = 0; i < 40; ++i) {
      for (int const gap : gaps) {
        auto const until = std::chrono::steady_clock::now() + std::chrono::microseconds(gap);
        while (std::chrono::steady_clock::now() < until) continue;
        auto task = [&](std::size_t at) { ++data[at]; };
        pool.run(data.size(), task);
        ++rounds;
        ASSERT_EQ(std::accumulate(data.begin(), data.end(), 0), 24 * rounds);
      }
    }
  }
}

TEST(WorkerPool, TakesTurnsBetweenCallers) {
  WorkerPool pool(3);
  std::vector<std::size_t> sums(4);
  std::vector<std::thread> callers;
  for (std::size_t caller = 0; caller < sums.size(); ++caller) {
    callers.emplace_back([&pool, &sum = sums[caller]] {
      for (int round = 0; round < 200; ++round) {
        std::vector<std::size_t> squares(16);
        auto task = [&](std::size_t i) { squares[i] = i * i; };
        pool.run(squares.size(), task);
        sum += std::accumulate(squares.begin(), squares.end(), std::size_t{0});
      }
    });
  }
  for (auto& caller : callers) caller.join();
  for (std::size_t sum : sums) EXPECT_EQ(sum, 200U * 1240U);
}

TEST(WorkerPool, EndsWithoutWork) {
  for (int i = 0; i < 50; ++i) WorkerPool const pool(4);
}

TEST(WorkerPool, CountsTheCallerAsAThread) {
  WorkerPool pool(1);
  auto const caller = std::this_thread::get_id();
  auto task = [&](std::size_t) { EXPECT_EQ(std::this_thread::get_id(), caller); };
  pool.run(8, task);
}

}  // namespace
