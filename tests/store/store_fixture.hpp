#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "sida/core/memory.hpp"
#include "sida/store/expert_store.hpp"
#include "tests/support/manual_tier.hpp"
#include "tests/support/memory_source.hpp"

namespace sida::test {

inline constexpr std::size_t kRecordBytes = 5000;  // two pages a slot, and not a whole number of words
inline constexpr std::size_t kSlotBytes = 8192;

/// A store over made-up experts and the tier of the test's choice.
struct StoreUnderTest {
  std::shared_ptr<MemorySource> source;
  std::shared_ptr<ManualFills> fills;  // manual tier only
  std::shared_ptr<HostMemory> memory = std::make_shared<HostMemory>();
  std::unique_ptr<ExpertStore> store;

  ExpertStore* operator->() const { return store.get(); }
};

enum class TierKind { host, manual };

struct StoreSetup {
  std::vector<std::uint32_t> layers = {8, 8, 8};
  std::uint32_t slots = 6;
  PolicyKind policy = PolicyKind::lru;
  std::uint32_t prefetch_depth = 2;
  TierKind tier = TierKind::host;
  bool released_at_random = false;  // manual tier: a thread completes fills in random order
};

inline StoreUnderTest open_store(StoreSetup const& setup) {
  StoreUnderTest test;
  test.source = std::make_shared<MemorySource>(setup.layers, kRecordBytes);
  std::unique_ptr<FastTier> tier;
  if (setup.tier == TierKind::host) {
    tier = make_host_tier(test.source, *test.memory, 3);
  } else {
    auto manual = std::make_unique<ManualTier>(test.source);
    test.fills = manual->fills();
    if (setup.released_at_random) manual->release_at_random(1);
    tier = std::move(manual);
  }
  auto store = ExpertStore::open(
      *test.source, std::move(tier),
      {.budget_bytes = setup.slots * kSlotBytes, .policy = setup.policy, .prefetch_depth = setup.prefetch_depth});
  EXPECT_TRUE(store) << store.message();
  if (store) test.store = *std::move(store);
  return test;
}

inline std::vector<ExpertId> experts(std::uint32_t layer, std::vector<std::uint32_t> const& numbers) {
  std::vector<ExpertId> ids;
  for (std::uint32_t const number : numbers) ids.push_back({layer, number});
  return ids;
}

/// Every expert of the wave has its own bytes.
inline void expect_own_bytes(StoreUnderTest const& test, Wave const& wave) {
  for (auto const& expert : wave.experts())
    EXPECT_TRUE(test.source->holds(expert.id, expert.data)) << to_string(expert.id);
}

/// Runs one event through all its waves and checks each.
inline void run_event(StoreUnderTest const& test, std::vector<ExpertId> const& ids, PlanPosition position = {}) {
  auto event = test->begin_event(ids, position);
  ASSERT_TRUE(event) << event.message();
  std::vector<ExpertId> served;
  while (!event->done()) {
    auto wave = event->next_wave(StreamRef::host());
    ASSERT_TRUE(wave) << wave.message();
    expect_own_bytes(test, *wave);
    for (auto const& expert : wave->experts()) served.push_back(expert.id);
  }
  auto sorted = ids;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_EQ(served, sorted);
}

}  // namespace sida::test
