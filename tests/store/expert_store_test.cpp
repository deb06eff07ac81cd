// What every store promises, over every tier that a test can drive.
#include "sida/store/expert_store.hpp"

#include <atomic>
#include <chrono>
#include <random>
#include <set>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sida/policy/belady.hpp"
#include "tests/store/store_fixture.hpp"

namespace sida::test {
namespace {

using ::testing::HasSubstr;

struct Case {
  TierKind tier;
  PolicyKind policy;
};

class AnyStore : public ::testing::TestWithParam<Case> {
 protected:
  static StoreUnderTest open(StoreSetup setup = {}) {
    setup.tier = GetParam().tier;
    setup.policy = GetParam().policy;
    setup.released_at_random = true;
    return open_store(setup);
  }
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (auto const tier : {TierKind::host, TierKind::manual}) {
    for (auto const policy :
         {PolicyKind::fifo, PolicyKind::lru, PolicyKind::lfu, PolicyKind::lfru, PolicyKind::next_use}) {
      cases.push_back({tier, policy});
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Tiers, AnyStore, ::testing::ValuesIn(all_cases()), [](auto const& each) {
  std::string name(to_string(each.param.policy));
  std::erase(name, '-');
  return name + (each.param.tier == TierKind::host ? "OnHost" : "OnManual");
});

TEST_P(AnyStore, LeasesExpertsWithTheirOwnBytes) {
  auto const test = open();
  auto wave = test->acquire(experts(1, {3, 0, 7}), StreamRef::host());
  ASSERT_TRUE(wave) << wave.message();
  ASSERT_EQ(wave->size(), 3U);
  EXPECT_EQ(wave->experts()[0].id, (ExpertId{1, 0}));
  EXPECT_EQ(wave->experts()[2].id, (ExpertId{1, 7}));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(wave->experts()[0].data) % 4096, 0U);
  expect_own_bytes(test, *wave);
}

TEST_P(AnyStore, CountsHitsAgainstTheStateBeforeTheEvent) {
  auto const test = open();
  run_event(test, experts(0, {1, 2}));
  run_event(test, experts(0, {2, 3}));
  auto const stats = test->stats();
  EXPECT_EQ(stats.events, 2U);
  EXPECT_EQ(stats.hits, 1U);
  EXPECT_EQ(stats.misses, 3U);
  EXPECT_EQ(stats.bytes_loaded, 3 * kSlotBytes);
  EXPECT_EQ(stats.peak_resident_bytes, 3 * kSlotBytes);
}

TEST_P(AnyStore, ServesAnEventLargerThanTheSlotsInAscendingWaves) {
  auto const test = open({.slots = 3});
  run_event(test, experts(2, {7, 6, 5, 4, 3, 2, 1, 0}));
  EXPECT_EQ(test->stats().events, 3U);
  EXPECT_LE(test->stats().peak_resident_bytes, 3 * kSlotBytes);
}

TEST_P(AnyStore, WorksWithOneSlot) {
  auto const test = open({.slots = 1});
  for (std::uint32_t layer = 0; layer < 3; ++layer) run_event(test, experts(layer, {0, 4, 5}));
  EXPECT_EQ(test->stats().misses, 9U);
  EXPECT_EQ(test->stats().peak_resident_bytes, kSlotBytes);
}

TEST_P(AnyStore, KeepsBytesInPlaceWhileAWaveLives) {
  auto const test = open({.slots = 4});
  auto held = test->acquire(experts(0, {0, 1}), StreamRef::host());
  ASSERT_TRUE(held);
  std::thread other([&] {
    for (std::uint32_t round = 0; round < 20; ++round) run_event(test, experts(1, {round % 8, (round + 3) % 8}));
  });
  other.join();
  expect_own_bytes(test, *held);
}

TEST_P(AnyStore, RefusesWhatItDoesNotKnow) {
  auto const test = open();
  EXPECT_EQ(test->acquire(experts(3, {0}), StreamRef::host()).code(), Errc::invalid_argument);
  EXPECT_EQ(test->acquire(experts(0, {8}), StreamRef::host()).code(), Errc::invalid_argument);
  auto const twice = test->acquire(experts(0, {2, 2}), StreamRef::host());
  EXPECT_THAT(twice.message(), HasSubstr("layer 0 expert 2"));
  std::vector<std::vector<ExpertId>> const plan{experts(9, {0})};
  EXPECT_EQ(test->submit_plan(plan).code(), Errc::invalid_argument);
}

TEST_P(AnyStore, RefusesAWaveOfMoreExpertsThanSlots) {
  auto const test = open({.slots = 2});
  auto const wave = test->acquire(experts(0, {0, 1, 2}), StreamRef::host());
  EXPECT_EQ(wave.code(), Errc::over_budget);
  EXPECT_THAT(wave.message(), HasSubstr("3 experts do not fit 2 slots"));
}

TEST_P(AnyStore, RefusesASecondWaveToAThreadThatHoldsOne) {
  auto const test = open();
  auto first = test->acquire(experts(0, {0}), StreamRef::host());
  ASSERT_TRUE(first);
  EXPECT_EQ(test->acquire(experts(0, {1}), StreamRef::host()).code(), Errc::would_deadlock);
  first->release();
  EXPECT_TRUE(test->acquire(experts(0, {1}), StreamRef::host()));
}

TEST_P(AnyStore, AcceptsAnEmptyEvent) {
  auto const test = open();
  auto const event = test->begin_event({});
  ASSERT_TRUE(event);
  EXPECT_TRUE(event->done());
  auto const wave = test->acquire({}, StreamRef::host());
  ASSERT_TRUE(wave);
  EXPECT_TRUE(wave->empty());
  EXPECT_EQ(test->stats().events, 0U);
}

TEST_P(AnyStore, MovesWavesAndEvents) {
  auto const test = open({.slots = 2});
  auto event = test->begin_event(experts(0, {0, 1, 2, 3}));
  ASSERT_TRUE(event);
  DemandEvent moved = *std::move(event);
  auto wave = moved.next_wave(StreamRef::host());
  ASSERT_TRUE(wave);
  Wave held = *std::move(wave);
  EXPECT_TRUE(wave->empty());  // NOLINT(bugprone-use-after-move): a moved-from wave is empty, and says so
  expect_own_bytes(test, held);
  held = Wave();
  EXPECT_TRUE(moved.next_wave(StreamRef::host()));
  EXPECT_TRUE(moved.done());
}

TEST_P(AnyStore, IsEmptyAfterReset) {
  auto const test = open();
  std::vector<std::vector<ExpertId>> const plan{experts(0, {0, 1}), experts(1, {2})};
  ASSERT_TRUE(test->submit_plan(plan));
  run_event(test, experts(0, {5}));
  {
    auto held = test->acquire(experts(0, {5}), StreamRef::host());
    ASSERT_TRUE(held);
    EXPECT_EQ(test->reset().code(), Errc::invalid_argument);
  }
  ASSERT_TRUE(test->reset());
  EXPECT_EQ(test->stats().loads, 0U);
  run_event(test, experts(0, {5}));
  EXPECT_EQ(test->stats().misses, 1U);
}

TEST_P(AnyStore, WakesAWaiterWhenCancelled) {
  auto const test = open({.slots = 1});
  auto held = test->acquire(experts(0, {0}), StreamRef::host());
  ASSERT_TRUE(held);
  std::thread waiter([&] { EXPECT_EQ(test->acquire(experts(0, {1}), StreamRef::host()).code(), Errc::cancelled); });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  test->cancel();
  waiter.join();
  expect_own_bytes(test, *held);  // what is out stays valid
  held->release();
  EXPECT_EQ(test->acquire(experts(0, {0}), StreamRef::host()).code(), Errc::cancelled);
}

TEST_P(AnyStore, ServesRandomEventsUnderRightAndWrongPlans) {
  std::mt19937 random(11);
  for (std::uint32_t const slots : {1U, 2U, 5U, 13U, 24U}) {
    auto const test = open({.slots = slots});
    for (int batch = 0; batch < 40; ++batch) {
      std::vector<std::vector<ExpertId>> events(3);
      std::vector<std::vector<ExpertId>> plan(3);
      for (std::uint32_t layer = 0; layer < 3; ++layer) {
        std::set<ExpertId> ids;
        for (auto i = random() % 6; i > 0; --i) ids.insert({layer, static_cast<std::uint32_t>(random() % 8)});
        events[layer].assign(ids.begin(), ids.end());
        plan[layer] = events[layer];
        if (batch % 3 == 1) plan[layer] = experts(static_cast<std::uint32_t>(random() % 3), {1, 5, 6});
      }
      PlanId const id = batch % 3 == 2 ? PlanId::none : *test->submit_plan(plan);
      for (std::uint32_t layer = 0; layer < 3; ++layer) run_event(test, events[layer], {id, layer});
      if (batch % 5 == 0) test->drop_plan(id);
    }
    auto const stats = test->stats();
    EXPECT_LE(stats.peak_resident_bytes, slots * kSlotBytes);
    EXPECT_GE(stats.loads, stats.misses);
    EXPECT_EQ(stats.bytes_loaded, stats.loads * kSlotBytes);
    EXPECT_LE(stats.prefetches_used + stats.prefetches_wasted, stats.prefetches);
    EXPECT_EQ(stats.failed_loads, 0U);
  }
}

/// What a replay of the demand log by the same policy would load.
std::uint64_t replayed_loads(PolicyKind kind, std::vector<std::vector<ExpertId>> const& log, std::uint32_t slots) {
  auto const policy = make_policy(kind, {.experts_per_layer = {8, 8, 8}, .slots = slots});
  std::vector<std::vector<ExpertIndex>> events;
  for (auto const& ids : log) {
    events.emplace_back();
    for (ExpertId const id : ids) events.back().push_back(id.layer * 8 + id.expert);
  }
  Horizon const horizon(24);
  std::set<ExpertIndex> residents;
  std::uint64_t loads = 0;
  for (ExpertSet const event : cut_events(events, slots)) {
    policy->touch(event);
    for (ExpertIndex const expert : event) {
      if (residents.count(expert) != 0) continue;
      ++loads;
      if (residents.size() == slots) {
        std::vector<ExpertIndex> candidates;
        std::set_difference(residents.begin(), residents.end(), event.begin(), event.end(),
                            std::back_inserter(candidates));
        ExpertIndex const victim = policy->choose_victim(candidates, horizon);
        residents.erase(victim);
        policy->erase(victim);
      }
      residents.insert(expert);
      policy->insert(expert);
    }
  }
  return loads;
}

TEST_P(AnyStore, LoadsWithoutAPlanWhatAReplayOfItsLogLoads) {
  std::mt19937 random(12);
  for (std::uint32_t const slots : {1U, 3U, 7U, 16U}) {
    auto const test = open({.slots = slots});
    std::vector<std::vector<ExpertId>> log;
    for (std::uint32_t step = 0; step < 150; ++step) {
      std::set<ExpertId> ids;
      for (auto i = 1 + random() % 5; i > 0; --i) ids.insert({step % 3, static_cast<std::uint32_t>(random() % 8)});
      log.emplace_back(ids.begin(), ids.end());
      run_event(test, log.back());
    }
    auto const expected = replayed_loads(GetParam().policy, log, slots);
    EXPECT_EQ(test->stats().loads, expected) << slots << " slots";
    EXPECT_EQ(test->stats().misses, expected) << slots << " slots";
    EXPECT_EQ(test->stats().prefetches, 0U);
  }
}

TEST_P(AnyStore, ServesSeveralThreadsThatCompeteForFewSlots) {
  auto const test = open({.slots = 4});
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937 random(thread);
      for (int round = 0; round < 60; ++round) {
        std::set<std::uint32_t> numbers;
        for (auto i = 1 + random() % 6; i > 0; --i) numbers.insert(static_cast<std::uint32_t>(random() % 8));
        run_event(test, experts(static_cast<std::uint32_t>(random() % 3), {numbers.begin(), numbers.end()}));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_LE(test->stats().peak_resident_bytes, 4 * kSlotBytes);
}

TEST(StoreOpen, SaysBothNumbersWhenTheBudgetHoldsNoExpert) {
  auto const source = std::make_shared<MemorySource>(std::vector<std::uint32_t>{2}, kRecordBytes);
  HostMemory memory;
  auto const store = ExpertStore::open(*source, make_host_tier(source, memory, 1), {.budget_bytes = kSlotBytes - 1});
  EXPECT_EQ(store.code(), Errc::over_budget);
  EXPECT_THAT(store.message(), HasSubstr("8191"));
  EXPECT_THAT(store.message(), HasSubstr("8192"));
}

TEST(StoreOpen, TakesNoMoreSlotsThanThereAreExperts) {
  auto const source = std::make_shared<MemorySource>(std::vector<std::uint32_t>{2, 3}, kRecordBytes);
  HostMemory memory;
  auto const store = ExpertStore::open(*source, make_host_tier(source, memory, 1), {.budget_bytes = 100 * kSlotBytes});
  ASSERT_TRUE(store);
  EXPECT_EQ((*store)->slots(), 5U);
  EXPECT_EQ((*store)->expert_count(), 5U);
  EXPECT_EQ((*store)->slot_bytes(), kSlotBytes);
}

TEST(StoreOpen, RefusesASourceWithoutExperts) {
  auto const source = std::make_shared<MemorySource>(std::vector<std::uint32_t>{}, kRecordBytes);
  HostMemory memory;
  auto const store = ExpertStore::open(*source, make_host_tier(source, memory, 1), {.budget_bytes = kSlotBytes});
  EXPECT_EQ(store.code(), Errc::invalid_argument);
}

}  // namespace
}  // namespace sida::test
