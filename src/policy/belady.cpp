#include "sida/policy/belady.hpp"

#include <algorithm>
#include <set>
#include <tuple>

namespace sida::inline v0 {
namespace {

constexpr std::size_t kNeverAgain = static_cast<std::size_t>(-1);

/// Simulates one cache over a known sequence of events.
class Simulation {
 public:
  Simulation(std::span<ExpertSet const> events, std::span<ExpertIndex const> resident, std::uint32_t experts,
             std::uint32_t slots, std::span<std::uint64_t const> last_use)
      : events_(events), uses_(experts), cursor_(experts, 0), rank_(experts, 0), slots_(slots) {
    for (std::size_t i = 0; i < events.size(); ++i) {
      for (ExpertIndex const expert : events[i]) uses_[expert].push_back(i);
    }
    if (!last_use.empty()) {
      // Ranks, so that uses within the simulation can follow on.
      std::vector<ExpertIndex> by_age(resident.begin(), resident.end());
      std::sort(by_age.begin(), by_age.end(),
                [&](ExpertIndex a, ExpertIndex b) { return std::tuple(last_use[a], a) < std::tuple(last_use[b], b); });
      for (ExpertIndex const expert : by_age) rank_[expert] = next_rank_++;
    }
    for (ExpertIndex const expert : resident) idle_.insert(key(expert));
  }

  std::vector<PlannedLoad> run() {
    std::vector<PlannedLoad> loads;
    for (std::size_t i = 0; i < events_.size(); ++i) step(i, loads);
    return loads;
  }

 private:
  // Ascending order is the order of eviction: furthest next use, then longest unused, then lowest.
  using Key = std::tuple<std::size_t, std::uint64_t, ExpertIndex>;
  Key key(ExpertIndex expert) const {
    auto const& uses = uses_[expert];
    std::size_t const next = cursor_[expert] < uses.size() ? uses[cursor_[expert]] : kNeverAgain;
    return {kNeverAgain - next, rank_[expert], expert};
  }

  void step(std::size_t event, std::vector<PlannedLoad>& loads) {
    std::vector<ExpertIndex> missing;
    for (ExpertIndex const expert : events_[event]) {
      if (idle_.erase(key(expert)) == 0) missing.push_back(expert);
    }
    std::size_t busy = events_[event].size() - missing.size();  // residents that the event holds
    for (ExpertIndex const expert : missing) {
      PlannedLoad load{expert, std::nullopt, event};
      if (idle_.size() + busy >= slots_) {
        load.victim = std::get<ExpertIndex>(*idle_.begin());
        idle_.erase(idle_.begin());
      }
      ++busy;
      loads.push_back(load);
    }
    for (ExpertIndex const expert : events_[event]) {
      ++cursor_[expert];
      rank_[expert] = next_rank_;
      idle_.insert(key(expert));
    }
    ++next_rank_;
  }

  std::span<ExpertSet const> events_;
  std::vector<std::vector<std::size_t>> uses_;  // per expert, ascending event numbers
  std::vector<std::size_t> cursor_;             // per expert, its next use in uses_
  std::vector<std::uint64_t> rank_;             // per expert, when it was used last
  std::uint64_t next_rank_ = 1;
  std::size_t slots_;
  std::set<Key> idle_;  // residents outside the current event
};

}  // namespace

std::vector<PlannedLoad> belady_schedule(std::span<ExpertSet const> events, std::span<ExpertIndex const> resident,
                                         std::uint32_t experts, std::uint32_t slots,
                                         std::span<std::uint64_t const> last_use) {
  return Simulation(events, resident, experts, slots, last_use).run();
}

std::vector<ExpertSet> cut_events(std::span<std::vector<ExpertIndex> const> events, std::uint32_t slots) {
  std::vector<ExpertSet> parts;
  parts.reserve(events.size());
  for (auto const& event : events) {
    ExpertSet rest = event;
    do {
      ExpertSet const part = rest.first(std::min<std::size_t>(slots, rest.size()));
      parts.push_back(part);
      rest = rest.subspan(part.size());
    } while (!rest.empty());
  }
  return parts;
}

std::uint64_t belady_min_loads(std::span<std::vector<ExpertIndex> const> events, std::uint32_t experts,
                               std::uint32_t slots) {
  return belady_schedule(cut_events(events, slots), {}, experts, slots).size();
}

}  // namespace sida::inline v0
