// A program of its own: it puts its own pthread_create in front of the C library's, so that the system gives no more
// threads when a test says so.

#include <atomic>
#include <cerrno>
#include <dlfcn.h>
#include <memory>
#include <pthread.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sida/core/memory.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/store/expert_store.hpp"
#include "tests/support/memory_source.hpp"

namespace {

std::atomic<int> threads_left{-1};  // below 0: no limit

struct ThreadsLeft {
  explicit ThreadsLeft(int threads) { threads_left = threads; }
  ~ThreadsLeft() { threads_left = -1; }
};

}  // namespace

extern "C" __attribute__((visibility("default"))) int pthread_create(pthread_t* thread,
                                                                     pthread_attr_t const* attributes,
                                                                     void* (*body)(void*), void* argument) noexcept {
  if (threads_left == 0) return EAGAIN;
  if (threads_left > 0) --threads_left;
  static auto* const create = reinterpret_cast<decltype(&pthread_create)>(::dlsym(RTLD_NEXT, "pthread_create"));
  return create(thread, attributes, body, argument);
}

namespace sida::test {
namespace {

using ::testing::HasSubstr;

Result<std::unique_ptr<ExpertStore>> open_store(HostMemory& memory, unsigned io_threads) {
  auto source = std::make_shared<MemorySource>(std::vector<std::uint32_t>{4}, 4096);
  return ExpertStore::open(*source, make_host_tier(source, memory, io_threads), {.budget_bytes = 8192});
}

TEST(HostTierThreads, OpenFailsWhereTheSystemGivesNoThread) {
  HostMemory memory;
  for (int const given : {0, 1, 3}) {
    ThreadsLeft const limit(given);
    auto const store = open_store(memory, 4);
    ASSERT_FALSE(store) << given;
    EXPECT_EQ(store.status().code(), Errc::out_of_memory) << given;
    EXPECT_THAT(std::string(store.message()), HasSubstr(std::to_string(given) + " of 4 started")) << store.message();
  }
  EXPECT_TRUE(open_store(memory, 4));
}

TEST(WorkerPoolThreads, AreAsManyAsTheSystemGives) {
  for (int const given : {0, 1, 2}) {
    ThreadsLeft const limit(given);
    WorkerPool pool(4);
    EXPECT_EQ(pool.concurrency(), static_cast<std::size_t>(given) + 1);
    std::atomic<int> runs{0};
    auto task = [&](std::size_t) { ++runs; };
    pool.run(100, task);
    EXPECT_EQ(runs, 100);
  }
}

}  // namespace
}  // namespace sida::test
