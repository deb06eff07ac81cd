// What the store loads ahead, in which order, and whose slot it takes.
#include <numeric>
#include <random>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sida/policy/belady.hpp"
#include "tests/store/store_fixture.hpp"

namespace sida::test {
namespace {

using Plan = std::vector<std::vector<ExpertId>>;

std::vector<ExpertId> pending_experts(StoreUnderTest const& test) {
  std::vector<ExpertId> ids;
  for (auto const& fill : test.fills->pending()) ids.push_back(fill.expert);
  return ids;
}

void settle(StoreUnderTest const& test) {
  while (test.fills->release_next()) {
  }
}

TEST(Prefetch, StartsLoadsInTheOrderOfNextUseAndAtMostDepthAtOnce) {
  auto const test = open_store({.tier = TierKind::manual});
  ASSERT_TRUE(test->submit_plan(Plan{experts(0, {4, 1}), experts(1, {2}), experts(2, {0})}));
  EXPECT_EQ(pending_experts(test), (std::vector<ExpertId>{{0, 1}, {0, 4}}));
  test.fills->release({0, 4});
  EXPECT_EQ(pending_experts(test), (std::vector<ExpertId>{{0, 1}, {1, 2}}));
  settle(test);
  EXPECT_EQ(test->stats().prefetches, 4U);
}

TEST(Prefetch, GivesWayToADemand) {
  auto const test = open_store({.slots = 4, .tier = TierKind::manual});
  ASSERT_TRUE(test->submit_plan(Plan{experts(0, {0, 1, 2, 3})}));
  std::thread demand([&] { run_event(test, experts(2, {5, 6})); });
  test.fills->wait_for(4);  // both demands are under way beside the two prefetches
  EXPECT_EQ(test.fills->pending()[2].urgency, FillUrgency::demand);
  EXPECT_EQ(test.fills->pending()[3].urgency, FillUrgency::demand);
  test.fills->release({2, 6});
  test.fills->release({2, 5});
  demand.join();
  settle(test);
  EXPECT_EQ(test->stats().misses, 2U);
}

TEST(Prefetch, IsAdoptedByTheDemandThatComesMeanwhile) {
  auto const test = open_store({.tier = TierKind::manual});
  auto const plan = test->submit_plan(Plan{experts(0, {3})});
  ASSERT_TRUE(plan);
  std::thread demand([&] { run_event(test, experts(0, {3}), {*plan, 0}); });
  while (test->stats().hits == 0) std::this_thread::yield();
  EXPECT_EQ(pending_experts(test), (std::vector<ExpertId>{{0, 3}}));
  test.fills->release({0, 3});
  demand.join();
  auto const stats = test->stats();
  EXPECT_EQ(stats.late_hits, 1U);
  EXPECT_EQ(stats.prefetches_used, 1U);
  EXPECT_EQ(stats.loads, 1U);
  EXPECT_GT(stats.stall_ns, 0U);
}

TEST(Prefetch, NeverEvictsWhatAnEarlierPlannedEventNeeds) {
  for (auto const policy :
       {PolicyKind::fifo, PolicyKind::lru, PolicyKind::lfu, PolicyKind::lfru, PolicyKind::next_use}) {
    auto const test = open_store({.slots = 2, .policy = policy, .tier = TierKind::manual});
    ASSERT_TRUE(test->submit_plan(Plan{experts(0, {0, 1}), experts(1, {0, 1})}));
    settle(test);
    EXPECT_EQ(test->stats().prefetches, 2U) << to_string(policy);  // the second event has to wait for the first
    EXPECT_EQ(test->stats().evictions, 0U);
  }
}

TEST(Prefetch, GoesOnWhenThePlanThatHeldItUpIsDropped) {
  for (auto const policy : {PolicyKind::lru, PolicyKind::next_use}) {
    auto const test = open_store({.slots = 1, .policy = policy, .tier = TierKind::manual});
    auto const first = test->submit_plan(Plan{experts(0, {0})});
    ASSERT_TRUE(first);
    settle(test);
    ASSERT_TRUE(test->submit_plan(Plan{experts(1, {1})}));
    EXPECT_TRUE(test.fills->pending().empty()) << to_string(policy);
    test->drop_plan(*first);
    EXPECT_EQ(pending_experts(test), experts(1, {1})) << to_string(policy);
    settle(test);
  }
}

TEST(Prefetch, ForgetsTheLoadsOfEventsThatAreSkipped) {
  for (auto const policy : {PolicyKind::lru, PolicyKind::next_use}) {
    auto const test = open_store({.slots = 4, .policy = policy, .prefetch_depth = 1, .tier = TierKind::manual});
    std::thread loader([&] { test.fills->wait_for(4), settle(test); });
    run_event(test, experts(0, {0, 1, 2, 3}));
    loader.join();
    auto held = test->acquire(experts(0, {0, 1, 2, 3}), StreamRef::host());  // nothing may be loaded ahead yet
    ASSERT_TRUE(held);
    auto const plan = test->submit_plan(Plan{experts(1, {0}), experts(1, {1}), experts(1, {2}), experts(0, {0})});
    ASSERT_TRUE(plan);
    ASSERT_TRUE(test->submit_plan(Plan{experts(0, {1, 2, 3})}));
    std::thread reader([&] { run_event(test, experts(0, {0}), {*plan, 3}); });
    reader.join();
    held->release();
    EXPECT_TRUE(test.fills->pending().empty()) << to_string(policy);
    settle(test);
  }
}

TEST(Prefetch, NeverEvictsAPinnedExpert) {
  auto const test = open_store({.slots = 2, .tier = TierKind::manual});
  std::thread loader([&] { test.fills->wait_for(2), settle(test); });
  auto held = test->acquire(experts(0, {0, 1}), StreamRef::host());
  loader.join();
  ASSERT_TRUE(held);
  ASSERT_TRUE(test->submit_plan(Plan{experts(1, {0, 1})}));
  EXPECT_TRUE(test.fills->pending().empty());
  held->release();
  EXPECT_EQ(test.fills->pending().size(), 2U);
  settle(test);
}

TEST(Prefetch, IsNotRepeatedAfterAFailureUntilADemand) {
  auto const test = open_store({.prefetch_depth = 1, .tier = TierKind::manual});
  auto const plan = test->submit_plan(Plan{experts(0, {3})});
  ASSERT_TRUE(plan);
  test.fills->release({0, 3}, Error(Errc::io, "injected"));
  EXPECT_TRUE(test.fills->pending().empty());
  std::thread demand([&] { run_event(test, experts(0, {3}), {*plan, 0}); });
  test.fills->wait_for(1);
  settle(test);
  demand.join();
  EXPECT_EQ(test->stats().failed_loads, 1U);
  EXPECT_EQ(test->stats().prefetches_wasted, 1U);
}

TEST(Prefetch, CountsMissesThatThePlanDidNotName) {
  auto const test = open_store({});
  auto const plan = test->submit_plan(Plan{experts(0, {0}), experts(1, {1})});
  ASSERT_TRUE(plan);
  run_event(test, experts(0, {0, 7}), {*plan, 0});
  run_event(test, experts(1, {1}), {*plan, 1});
  auto const stats = test->stats();
  EXPECT_EQ(stats.planned_events, 2U);
  EXPECT_EQ(stats.mispredicted_loads, 1U);
}

/// Batches of three layers with skewed random routing.
std::vector<Plan> random_batches(std::mt19937& random, std::size_t count, std::uint32_t experts_per_layer) {
  std::vector<Plan> batches(count, Plan(3));
  for (auto& batch : batches) {
    for (std::uint32_t layer = 0; layer < 3; ++layer) {
      std::set<ExpertId> ids;
      for (int i = 0; i < 5; ++i) {
        ids.insert(
            {layer, static_cast<std::uint32_t>(std::min(random() % experts_per_layer, random() % experts_per_layer))});
      }
      batch[layer].assign(ids.begin(), ids.end());
    }
  }
  return batches;
}

std::uint64_t min_loads(std::vector<Plan> const& batches, std::uint32_t experts_per_layer, std::uint32_t slots) {
  std::vector<std::vector<ExpertIndex>> events;
  for (auto const& batch : batches) {
    for (auto const& event : batch) {
      events.emplace_back();
      for (ExpertId const id : event) events.back().push_back(id.layer * experts_per_layer + id.expert);
    }
  }
  return belady_min_loads(events, 3 * experts_per_layer, slots);
}

/// Runs `batches` with right plans `lookahead` ahead. @return loads.
std::uint64_t run_planned(StoreUnderTest const& test, std::vector<Plan> const& batches, std::size_t lookahead) {
  std::vector<PlanId> plans;
  for (std::size_t i = 0; i < batches.size(); ++i) {
    while (plans.size() < std::min(batches.size(), i + 1 + lookahead)) {
      plans.push_back(*test->submit_plan(batches[plans.size()]));
    }
    for (std::uint32_t layer = 0; layer < 3; ++layer) run_event(test, batches[i][layer], {plans[i], layer});
  }
  return test->stats().loads;
}

TEST(NextUsePlan, LoadsNoMoreThanBeladyWhenItKnowsTheWholeFuture) {
  std::mt19937 random(31);
  for (std::uint32_t const slots : {1U, 2U, 4U, 6U, 9U, 20U, 30U}) {
    for (auto const tier : {TierKind::host, TierKind::manual}) {
      auto const batches = random_batches(random, 30, 16);
      auto const test = open_store({.layers = {16, 16, 16},
                                    .slots = slots,
                                    .policy = PolicyKind::next_use,
                                    .tier = tier,
                                    .released_at_random = true});
      EXPECT_EQ(run_planned(test, batches, batches.size()), min_loads(batches, 16, slots)) << slots << " slots";
    }
  }
}

TEST(NextUsePlan, StaysCloseToBeladyWithALimitedHorizon) {
  std::mt19937 random(32);
  auto const batches = random_batches(random, 120, 32);
  std::uint32_t const slots = 24;
  auto const test = open_store({.layers = {32, 32, 32}, .slots = slots, .policy = PolicyKind::next_use});
  auto const loads = run_planned(test, batches, 16);
  EXPECT_LE(static_cast<double>(loads), 1.02 * static_cast<double>(min_loads(batches, 32, slots)));
  EXPECT_GT(test->stats().prefetches_used, loads / 2);
}

TEST(NextUsePlan, WastesNoPrefetchWhenThePlanIsRight) {
  std::mt19937 random(33);
  auto const batches = random_batches(random, 60, 16);
  auto const test = open_store({.layers = {16, 16, 16}, .slots = 12, .policy = PolicyKind::next_use});
  run_planned(test, batches, 8);
  EXPECT_EQ(test->stats().prefetches_wasted, 0U);
}

}  // namespace
}  // namespace sida::test
