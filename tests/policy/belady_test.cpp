#include "sida/policy/belady.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sida {
namespace {

using Events = std::vector<std::vector<ExpertIndex>>;
using Residents = std::set<ExpertIndex>;

/// The least loads by trying every choice of victims.
class BruteForce {
 public:
  BruteForce(std::vector<ExpertSet> events, std::size_t slots) : events_(std::move(events)), slots_(slots) {}
  std::uint64_t least(std::size_t event, Residents const& residents) {
    if (event == events_.size()) return 0;
    auto const key = std::pair(event, residents);
    if (auto const known = memo_.find(key); known != memo_.end()) return known->second;
    Residents with = residents;
    with.insert(events_[event].begin(), events_[event].end());
    std::uint64_t const loads = with.size() - residents.size();
    std::uint64_t best = std::numeric_limits<std::uint64_t>::max();
    evict(event, with, 0, best);
    return memo_[key] = best + loads;
  }

 private:
  /// Victims in ascending order, so that each set of them is tried once.
  void evict(std::size_t event, Residents const& residents, ExpertIndex from, std::uint64_t& best) {
    if (residents.size() <= slots_) {
      best = std::min(best, least(event + 1, residents));
      return;
    }
    for (auto it = residents.lower_bound(from); it != residents.end(); ++it) {
      ExpertIndex const victim = *it;
      auto const& needed = events_[event];
      if (std::find(needed.begin(), needed.end(), victim) != needed.end()) continue;
      Residents fewer = residents;
      fewer.erase(victim);
      evict(event, fewer, victim, best);
    }
  }
  std::vector<ExpertSet> events_;
  std::size_t slots_;
  std::map<std::pair<std::size_t, Residents>, std::uint64_t> memo_;
};

Events random_events(std::mt19937& random, std::size_t count, std::uint32_t experts, std::size_t most) {
  Events events(count);
  for (auto& event : events) {
    std::set<ExpertIndex> set;
    for (std::size_t i = random() % (most + 1); i > 0; --i) set.insert(static_cast<ExpertIndex>(random() % experts));
    event.assign(set.begin(), set.end());
  }
  return events;
}

TEST(Belady, NeedsAsFewLoadsAsTheBestOfAllSchedules) {
  std::mt19937 random(20);
  for (int round = 0; round < 100; ++round) {
    auto const slots = static_cast<std::uint32_t>(1 + random() % 4);
    Events const events = random_events(random, 7, 6, 5);
    BruteForce brute(cut_events(events, slots), slots);
    EXPECT_EQ(belady_min_loads(events, 6, slots), brute.least(0, {})) << "round " << round;
  }
}

TEST(Belady, ScheduleIsOneThatCanBeCarriedOut) {
  std::mt19937 random(21);
  for (int round = 0; round < 200; ++round) {
    auto const slots = static_cast<std::uint32_t>(2 + random() % 5);
    Events const events = random_events(random, 20, 12, slots);
    std::vector<ExpertSet> const sets(events.begin(), events.end());
    Residents residents{0, 1};
    std::vector<ExpertIndex> const start(residents.begin(), residents.end());
    auto const loads = belady_schedule(sets, start, 12, slots);
    std::size_t next = 0;
    for (std::size_t event = 0; event < events.size(); ++event) {
      for (; next < loads.size() && loads[next].event == event; ++next) {
        auto const& load = loads[next];
        EXPECT_EQ(load.victim.has_value(), residents.size() == slots);
        if (load.victim) {
          EXPECT_EQ(residents.erase(*load.victim), 1U);
          EXPECT_FALSE(std::binary_search(events[event].begin(), events[event].end(), *load.victim));
        }
        EXPECT_TRUE(residents.insert(load.load).second);
      }
      for (ExpertIndex const expert : events[event]) EXPECT_TRUE(residents.count(expert) == 1);
      EXPECT_LE(residents.size(), slots);
    }
    EXPECT_EQ(next, loads.size());
  }
}

TEST(Belady, EvictsTheLeastRecentlyUsedOfThoseNeverUsedAgain) {
  std::vector<ExpertIndex> const event{5};
  std::vector<ExpertSet> const events{event};
  std::vector<ExpertIndex> const resident{1, 2, 3};
  std::vector<std::uint64_t> const last_use{0, 9, 4, 7, 0, 0};
  auto const loads = belady_schedule(events, resident, 6, 3, last_use);
  ASSERT_EQ(loads.size(), 1U);
  EXPECT_EQ(loads[0].victim, 2U);
}

TEST(Belady, CutsLargeEventsInAscendingOrder) {
  Events const events{{1, 2, 3, 4, 5}, {}, {6}};
  auto const parts = cut_events(events, 2);
  ASSERT_EQ(parts.size(), 5U);
  EXPECT_THAT(parts[1], ::testing::ElementsAre(3, 4));
  EXPECT_TRUE(parts[3].empty());
}

}  // namespace
}  // namespace sida
