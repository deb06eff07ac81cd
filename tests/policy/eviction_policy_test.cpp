#include "sida/policy/eviction_policy.hpp"

#include <algorithm>
#include <random>
#include <set>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sida/policy/belady.hpp"

namespace sida {
namespace {

constexpr PolicyKind kAll[] = {PolicyKind::fifo, PolicyKind::lru, PolicyKind::lfu, PolicyKind::lfru,
                               PolicyKind::next_use};

/// A cache as a replay of a trace would keep it: event-atomic, victims from outside the event.
class Cache {
 public:
  Cache(PolicyKind kind, std::vector<std::uint32_t> layers, std::uint32_t slots)
      : policy_(make_policy(kind, {.experts_per_layer = std::move(layers), .slots = slots})), slots_(slots) {}

  std::uint64_t demand(std::vector<ExpertIndex> const& event, Horizon const& horizon) {
    policy_->touch(event);
    std::uint64_t loads = 0;
    for (ExpertIndex const expert : event) {
      if (residents_.count(expert) != 0) continue;
      ++loads;
      if (residents_.size() == slots_) evict(event, horizon);
      residents_.insert(expert);
      policy_->insert(expert);
    }
    return loads;
  }
  std::set<ExpertIndex> const& residents() const { return residents_; }

 private:
  void evict(std::vector<ExpertIndex> const& event, Horizon const& horizon) {
    std::vector<ExpertIndex> candidates;
    std::set_difference(residents_.begin(), residents_.end(), event.begin(), event.end(),
                        std::back_inserter(candidates));
    ExpertIndex const victim = policy_->choose_victim(candidates, horizon);
    ASSERT_TRUE(std::binary_search(candidates.begin(), candidates.end(), victim));
    residents_.erase(victim);
    policy_->erase(victim);
  }
  std::unique_ptr<EvictionPolicy> policy_;
  std::set<ExpertIndex> residents_;
  std::size_t slots_;
};

class AnyPolicy : public ::testing::TestWithParam<PolicyKind> {};
INSTANTIATE_TEST_SUITE_P(Policies, AnyPolicy, ::testing::ValuesIn(kAll), [](auto const& each) {
  std::string name(to_string(each.param));
  std::erase(name, '-');
  return name;
});

TEST_P(AnyPolicy, NamesItselfAsItIsParsed) {
  EXPECT_EQ(parse_policy(to_string(GetParam())), GetParam());
  EXPECT_EQ(make_policy(GetParam(), {.experts_per_layer = {4}, .slots = 2})->name(), to_string(GetParam()));
}

TEST_P(AnyPolicy, ChoosesAmongCandidatesAndRepeatsItself) {
  std::mt19937 random(7);
  Horizon const horizon(24);
  Cache first(GetParam(), {8, 8, 8}, 9);
  Cache second(GetParam(), {8, 8, 8}, 9);
  for (int step = 0; step < 600; ++step) {
    std::uint32_t const layer = static_cast<std::uint32_t>(step) % 3;
    std::set<ExpertIndex> event;
    for (int i = 0; i < 4; ++i) event.insert(layer * 8 + static_cast<ExpertIndex>(random() % 8));
    std::vector<ExpertIndex> const sorted(event.begin(), event.end());
    EXPECT_EQ(first.demand(sorted, horizon), second.demand(sorted, horizon));
    EXPECT_EQ(first.residents(), second.residents());
  }
}

TEST_P(AnyPolicy, NeverLoadsFewerThanBelady) {
  std::mt19937 random(8);
  Horizon const horizon(16);
  std::vector<std::vector<ExpertIndex>> events;
  Cache cache(GetParam(), {8, 8}, 5);
  std::uint64_t loads = 0;
  for (std::uint32_t step = 0; step < 400; ++step) {
    std::set<ExpertIndex> event;
    for (int i = 0; i < 3; ++i)
      event.insert(step % 2 * 8 + static_cast<ExpertIndex>(std::min(random() % 8, random() % 8)));
    events.emplace_back(event.begin(), event.end());
    loads += cache.demand(events.back(), horizon);
  }
  EXPECT_GE(loads, belady_min_loads(events, 16, 5));
}

TEST(Fifo, EvictsWhoCameFirstUsedOrNot) {
  Horizon const horizon(4);
  Cache cache(PolicyKind::fifo, {4}, 2);
  cache.demand({0}, horizon);
  cache.demand({1}, horizon);
  cache.demand({0}, horizon);
  cache.demand({2}, horizon);
  EXPECT_THAT(cache.residents(), ::testing::ElementsAre(1, 2));
}

TEST(Lru, EvictsTheLeastRecentlyUsed) {
  Horizon const horizon(4);
  Cache cache(PolicyKind::lru, {4}, 2);
  cache.demand({0}, horizon);
  cache.demand({1}, horizon);
  cache.demand({0}, horizon);
  cache.demand({2}, horizon);
  EXPECT_THAT(cache.residents(), ::testing::ElementsAre(0, 2));
}

TEST(Lfu, KeepsWhatWasUsedOften) {
  Horizon const horizon(4);
  Cache cache(PolicyKind::lfu, {4}, 2);
  for (int i = 0; i < 3; ++i) cache.demand({0}, horizon);
  cache.demand({1}, horizon);
  cache.demand({2}, horizon);
  EXPECT_THAT(cache.residents(), ::testing::ElementsAre(0, 2));
}

TEST(Lfu, ForgetsWhatWasUsedOftenLongAgo) {
  Horizon const horizon(8);
  Cache cache(PolicyKind::lfu, {8}, 2);
  for (int i = 0; i < 3; ++i) cache.demand({0}, horizon);
  for (int i = 0; i < 400; ++i) cache.demand({1}, horizon);
  cache.demand({2}, horizon);
  EXPECT_THAT(cache.residents(), ::testing::ElementsAre(1, 2));
}

TEST(Lfru, LeavesEachLayerItsFloor) {
  Horizon const horizon(16);
  Cache cache(PolicyKind::lfru, {8, 8}, 8);  // floor: half of 4
  for (int i = 0; i < 2; ++i) cache.demand({8, 9}, horizon);
  for (int i = 0; i < 50; ++i) {
    for (ExpertIndex expert = 0; expert < 8; ++expert) cache.demand({expert}, horizon);
  }
  EXPECT_EQ(cache.residents().count(8) + cache.residents().count(9), 2U);
}

TEST(NextUse, EvictsWhatThePlanNeedsLast) {
  Horizon horizon(4);
  Cache cache(PolicyKind::next_use, {4}, 2);
  cache.demand({0}, horizon);
  cache.demand({1}, horizon);
  horizon.append({{1}, {0}}, 2);
  cache.demand({2}, horizon);
  EXPECT_THAT(cache.residents(), ::testing::ElementsAre(1, 2));
}

TEST(NextUse, IsLruWithoutAPlan) {
  std::mt19937 random(9);
  Horizon const horizon(12);
  Cache planned(PolicyKind::next_use, {12}, 4);
  Cache lru(PolicyKind::lru, {12}, 4);
  for (int step = 0; step < 500; ++step) {
    std::vector<ExpertIndex> const event{static_cast<ExpertIndex>(random() % 12)};
    EXPECT_EQ(planned.demand(event, horizon), lru.demand(event, horizon));
  }
}

}  // namespace
}  // namespace sida
