// What a store over a host tier owes the order of its reads and its budget.
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "sida/core/memory.hpp"
#include "sida/store/expert_store.hpp"

namespace sida::test {
namespace {

constexpr std::size_t kRecord = 4096;

/// Notes what is read, in order; the first read waits until `open_gate`.
class GatedSource final : public ExpertSource {
 public:
  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return layers_; }
  std::size_t record_bytes(ExpertId) const noexcept override { return kRecord; }
  Status read(ExpertId id, std::span<std::byte>) const override {
    std::unique_lock lock(mutex_);
    reads_.push_back(id);
    opened_.wait(lock, [&] { return is_open_; });
    return {};
  }
  void open_gate() {
    {
      std::lock_guard const lock(mutex_);
      is_open_ = true;
    }
    opened_.notify_all();
  }
  std::vector<ExpertId> reads() const {
    std::lock_guard const lock(mutex_);
    return reads_;
  }

 private:
  std::vector<std::uint32_t> layers_{8};
  mutable std::mutex mutex_;
  mutable std::condition_variable opened_;
  mutable std::vector<ExpertId> reads_;
  bool is_open_ = false;
};

template <class F>
void wait_until(F const& happened) {
  while (!happened()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

TEST(HostTier, ADemandThatAdoptsAPrefetchIsServedInItsTurn) {
  auto const source = std::make_shared<GatedSource>();
  HostMemory memory;
  auto opened = ExpertStore::open(*source, make_host_tier(source, memory, 1), {.budget_bytes = 8 * kRecord});
  ASSERT_TRUE(opened) << opened.message();
  ExpertStore& store = **opened;
  std::vector<std::jthread> threads;
  std::uint64_t demanded = 0;
  auto const demand = [&](std::uint32_t expert) {
    threads.emplace_back([&store, expert] {
      ExpertId const wanted[] = {{0, expert}};
      EXPECT_TRUE(store.acquire(wanted, StreamRef::host()));
    });
    ++demanded;
    wait_until([&] { return store.stats().events == demanded; });
  };
  demand(0);
  wait_until([&] { return source->reads().size() == 1; });
  std::vector<std::vector<ExpertId>> const plan = {{{0, 5}}};
  ASSERT_TRUE(store.submit_plan(plan));
  ASSERT_EQ(store.stats().prefetches, 1U);
  demand(1);
  demand(5);  // adopts the prefetch, which the one thread hasn't begun
  demand(2);
  source->open_gate();
  threads.clear();
  EXPECT_EQ(source->reads(), (std::vector<ExpertId>{{0, 0}, {0, 1}, {0, 5}, {0, 2}}));
  EXPECT_EQ(store.stats().late_hits, 1U);
}

/// Counts what is allocated.
class CountingMemory final : public MemoryResource {
 public:
  Result<void*> allocate(std::size_t bytes, std::size_t alignment) override {
    allocated += bytes;
    return memory_.allocate(bytes, alignment);
  }
  void deallocate(void* data, std::size_t bytes, std::size_t alignment) noexcept override {
    memory_.deallocate(data, bytes, alignment);
  }
  Tier space() const noexcept override { return Tier::host; }
  std::size_t allocated = 0;

 private:
  HostMemory memory_;
};

TEST(HostTier, AsksForNoMoreMemoryThanTheBudget) {
  for (std::size_t const budget : {kRecord, kRecord + 1, 3 * kRecord - 1, 5 * kRecord, 8 * kRecord, 100 * kRecord}) {
    auto const source = std::make_shared<GatedSource>();
    source->open_gate();
    CountingMemory memory;
    auto opened = ExpertStore::open(*source, make_host_tier(source, memory, 2), {.budget_bytes = budget});
    ASSERT_TRUE(opened) << opened.message();
    std::byte const* least = nullptr;
    std::byte const* most = nullptr;
    for (std::uint32_t i = 0; i < 40; ++i) {
      ExpertId const wanted[] = {{0, i * 5 % 8}};
      auto const wave = (*opened)->acquire(wanted, StreamRef::host());
      ASSERT_TRUE(wave) << wave.message();
      std::byte const* const data = wave->experts()[0].data;
      least = least == nullptr ? data : std::min(least, data);
      most = std::max(most, data);
    }
    EXPECT_LE(memory.allocated, budget);
    EXPECT_LE(static_cast<std::size_t>(most + kRecord - least), memory.allocated)
        << "experts stand in what was asked for";
  }
}

}  // namespace
}  // namespace sida::test
