// A program of its own: it replaces operator new, so that memory runs out where a test says so.

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

#include "sida/core/memory.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/store/expert_store.hpp"
#include "tests/support/memory_source.hpp"

namespace {

thread_local long allocations_left = -1;  // of this thread; below 0: no limit

struct AllocationsLeft {
  explicit AllocationsLeft(long allocations) { allocations_left = allocations; }
  ~AllocationsLeft() { allocations_left = -1; }
  bool ran_out() const { return allocations_left == 0; }
};

}  // namespace

// Out of line: gcc, seeing only one of a pair inlined, takes them for mismatched.
#define SIDA_NOINLINE __attribute__((noinline))

SIDA_NOINLINE void* operator new(std::size_t bytes) {
  if (allocations_left == 0) throw std::bad_alloc();
  if (allocations_left > 0) --allocations_left;
  if (void* const data = std::malloc(bytes == 0 ? 1 : bytes)) return data;
  throw std::bad_alloc();
}
SIDA_NOINLINE void operator delete(void* data) noexcept { std::free(data); }
SIDA_NOINLINE void operator delete(void* data, std::size_t) noexcept { std::free(data); }

namespace sida::test {
namespace {

constexpr std::size_t kRecord = 4096;
constexpr long kEnough = 200;  // no call below allocates as often

/// A source whose reads fail for a while, with a message that takes memory.
class FailingSource final : public MemorySource {
 public:
  using MemorySource::MemorySource;
  Status read(ExpertId id, std::span<std::byte> dst) const override {
    if (fails) return {Errc::io, "the disk of this test can't read at the moment"};
    return MemorySource::read(id, dst);
  }
  std::atomic<bool> fails{false};
};

class MemoryFaults : public ::testing::TestWithParam<PolicyKind> {
 protected:
  void SetUp() override {
    source = std::make_shared<FailingSource>(std::vector<std::uint32_t>{16}, kRecord);
    auto opened = ExpertStore::open(*source, make_host_tier(source, memory, 1),
                                    {.budget_bytes = 2 * kRecord, .policy = GetParam()});
    ASSERT_TRUE(opened) << opened.message();
    store = *std::move(opened);
    acquire({0, 1});
  }
  void acquire(std::vector<std::uint32_t> const& experts) {
    std::vector<ExpertId> wanted;
    for (std::uint32_t const expert : experts) wanted.push_back({0, expert});
    auto const wave = store->acquire(wanted, StreamRef::host());
    ASSERT_TRUE(wave) << wave.message();
    for (auto const& expert : wave->experts()) EXPECT_TRUE(source->holds(expert.id, expert.data));
  }

  HostMemory memory;
  std::shared_ptr<FailingSource> source;
  std::unique_ptr<ExpertStore> store;
};

TEST_P(MemoryFaults, AnAcquireFailsWithAStatusAndTheStoreStaysUsable) {
  int failures = 0;
  for (long allocations = 0; allocations < kEnough; ++allocations) {
    auto const first = static_cast<std::uint32_t>(2 + 2 * (allocations % 6));
    std::vector<ExpertId> const wanted = {{0, first}, {0, first + 1}};
    {
      AllocationsLeft const limit(allocations);
      auto const wave = store->acquire(wanted, StreamRef::host());
      if (wave) break;
      EXPECT_EQ(wave.error().code(), Errc::out_of_memory) << wave.message();
      ++failures;
    }
    acquire({first, first + 1});  // nothing was lost, and nothing is in the way
    acquire({14, 15});
  }
  EXPECT_GT(failures, 2);
}

TEST_P(MemoryFaults, AFailedReadIsForgottenThoughThereIsNoMemoryToTellOfIt) {
  int failures = 0;
  for (long allocations = 0; allocations < kEnough; ++allocations) {
    auto const first = static_cast<std::uint32_t>(2 + 2 * (allocations % 6));
    std::vector<ExpertId> const wanted = {{0, first}, {0, first + 1}};
    source->fails = true;
    Errc code{};
    {
      AllocationsLeft const limit(allocations);
      code = store->acquire(wanted, StreamRef::host()).code();
    }
    source->fails = false;
    // A read that began before may still fail: each of the two once.
    for (int tries = 0; tries < 2 && !store->acquire(wanted, StreamRef::host()); ++tries) {
    }
    acquire({first, first + 1});
    acquire({14, 15});
    if (code == Errc::io) break;
    EXPECT_EQ(code, Errc::out_of_memory);
    ++failures;
  }
  EXPECT_GT(failures, 3);
}

TEST_P(MemoryFaults, AnEventThatMemoryFailedLeavesItsPlanAllTheSame) {
  for (long allocations = 0; allocations < kEnough; ++allocations) {
    auto const plan = store->submit_plan(std::vector<std::vector<ExpertId>>{{{0, 5}, {0, 6}}});
    ASSERT_TRUE(plan) << plan.message();
    auto event = store->begin_event(std::vector<ExpertId>{{0, 5}, {0, 6}}, {*plan, 0});
    ASSERT_TRUE(event) << event.message();
    bool failed = false;
    {
      AllocationsLeft const limit(allocations);
      failed = !event->next_wave(StreamRef::host());
    }
    if (failed) {
      ASSERT_TRUE(event->next_wave(StreamRef::host()));
    }
    EXPECT_EQ(store->stats().planned_events, static_cast<std::uint64_t>(allocations) + 1);
    acquire({14, 15});
    if (!failed) return;
  }
  FAIL() << "memory always ran out";
}

TEST_P(MemoryFaults, APlanIsTakenWholeOrNotAtAll) {
  std::vector<std::vector<ExpertId>> const events = {{{0, 5}, {0, 6}, {0, 7}}, {{0, 8}}, {{0, 5}}};
  int failures = 0;
  for (long allocations = 0; allocations < kEnough; ++allocations) {
    std::optional<Result<PlanId>> plan;
    bool ran_out = false;
    {
      AllocationsLeft const limit(allocations);
      plan = store->submit_plan(events);
      ran_out = limit.ran_out();
    }
    acquire({14, 15});
    acquire({5, 6});
    if (*plan) {
      store->drop_plan(**plan);
    } else {
      EXPECT_EQ(plan->error().code(), Errc::out_of_memory);
      ++failures;
    }
    if (!ran_out) break;
  }
  EXPECT_GT(failures, 2);
}

TEST_P(MemoryFaults, AWaveIsReleasedWithoutMemory) {
  std::vector<std::vector<ExpertId>> const events = {{{0, 5}, {0, 6}}, {{0, 7}}, {{0, 8}}};
  for (long allocations = 0; allocations < 20; ++allocations) {
    std::vector<ExpertId> const wanted = {{0, 2}, {0, 3}};
    auto wave = store->acquire(wanted, StreamRef::host());
    ASSERT_TRUE(wave) << wave.message();
    auto const plan = store->submit_plan(events);
    ASSERT_TRUE(plan) << plan.message();
    {
      AllocationsLeft const limit(allocations);
      wave->release();  // makes room for what the plan asks for
    }
    acquire({5, 6});
    store->drop_plan(*plan);
  }
}

TEST_P(MemoryFaults, AStoreGoesWithoutMemory) {
  std::vector<std::vector<ExpertId>> const events = {{{0, 5}, {0, 6}}, {{0, 7}}, {{0, 8}}};
  ASSERT_TRUE(store->submit_plan(events));  // fills are waiting
  AllocationsLeft const none(0);
  store.reset();
}

INSTANTIATE_TEST_SUITE_P(Policies, MemoryFaults,
                         ::testing::Values(PolicyKind::lru, PolicyKind::lfru, PolicyKind::next_use),
                         [](auto const& suite) {
                           return suite.param == PolicyKind::next_use ? "next_use"
                                                                      : std::string(to_string(suite.param));
                         });

TEST(WorkerPoolMemory, IsAsLargeAsMemoryAllows) {
  for (long allocations = 1; allocations < kEnough; ++allocations) {
    std::optional<WorkerPool> pool;
    bool ran_out = false;
    {
      AllocationsLeft const limit(allocations);
      pool.emplace(4);
      ran_out = limit.ran_out();
    }
    EXPECT_GE(pool->concurrency(), 1U);
    if (!ran_out) {
      EXPECT_EQ(pool->concurrency(), 4U);
      return;
    }
  }
  FAIL() << "memory always ran out";
}

}  // namespace
}  // namespace sida::test
