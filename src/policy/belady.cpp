#include "sida/policy/belady.hpp"

#include <algorithm>
#include <functional>
#include <tuple>
#include <utility>

namespace sida::inline v0 {
namespace {

constexpr std::size_t kNeverAgain = static_cast<std::size_t>(-1);

/// Simulates one cache over a known sequence of events.
class Simulation {
 public:
  Simulation(std::span<ExpertSet const> events, std::span<ExpertIndex const> resident, std::uint32_t experts,
             std::uint32_t slots, std::span<std::uint64_t const> last_use)
      : events_(events), ends_(experts), cursor_(experts), rank_(experts), idle_(experts), slots_(slots) {
    list_uses();
    if (!last_use.empty()) {
      // Ranks, so that uses within the simulation can follow on.
      std::vector<ExpertIndex> by_age(resident.begin(), resident.end());
      std::sort(by_age.begin(), by_age.end(),
                [&](ExpertIndex a, ExpertIndex b) { return std::tuple(last_use[a], a) < std::tuple(last_use[b], b); });
      for (ExpertIndex const expert : by_age) rank_[expert] = next_rank_++;
    }
    for (ExpertIndex const expert : resident) add_idle(expert);
  }

  /// Up to the event that brings the loads to `most_loads`.
  std::vector<PlannedLoad> run(std::size_t most_loads) {
    std::vector<PlannedLoad> loads;
    for (std::size_t i = 0; i < events_.size() && loads.size() < most_loads; ++i) step(i, loads);
    return loads;
  }

 private:
  // Ascending order is the order of eviction: furthest next use, then longest unused, then lowest.
  using Key = std::tuple<std::size_t, std::uint64_t, ExpertIndex>;
  Key key(ExpertIndex expert) const {
    std::size_t const next = cursor_[expert] < ends_[expert] ? uses_[cursor_[expert]] : kNeverAgain;
    return {kNeverAgain - next, rank_[expert], expert};
  }

  /// Event numbers by expert, ascending: those of `e` are uses_[cursor_[e], ends_[e]).
  void list_uses() {
    for (auto const& event : events_) {
      for (ExpertIndex const expert : event) ++ends_[expert];
    }
    std::size_t total = 0;
    for (std::size_t expert = 0; expert < ends_.size(); ++expert) {
      cursor_[expert] = total;
      total += std::exchange(ends_[expert], total);
    }
    uses_.resize(total);
    for (std::size_t i = 0; i < events_.size(); ++i) {
      for (ExpertIndex const expert : events_[i]) uses_[ends_[expert]++] = i;
    }
  }

  void add_idle(ExpertIndex expert) {
    idle_[expert] = true;
    ++idle_count_;
    if (by_key_.size() > 2 * slots_ + 64) {  // most are out of date
      std::erase_if(by_key_, [&](Key const& entry) { return !is_current(entry); });
      std::make_heap(by_key_.begin(), by_key_.end(), std::greater<>());
    }
    by_key_.push_back(key(expert));
    std::push_heap(by_key_.begin(), by_key_.end(), std::greater<>());
  }

  bool is_current(Key const& entry) const {
    auto const expert = std::get<ExpertIndex>(entry);
    return idle_[expert] && key(expert) == entry;
  }

  /// Precondition: there is an idle resident.
  ExpertIndex evict() {
    for (;;) {
      std::pop_heap(by_key_.begin(), by_key_.end(), std::greater<>());
      Key const first = by_key_.back();
      by_key_.pop_back();
      if (!is_current(first)) continue;
      auto const victim = std::get<ExpertIndex>(first);
      idle_[victim] = false;
      --idle_count_;
      return victim;
    }
  }

  void step(std::size_t event, std::vector<PlannedLoad>& loads) {
    missing_.clear();
    for (ExpertIndex const expert : events_[event]) {
      if (!idle_[expert]) {
        missing_.push_back(expert);
        continue;
      }
      idle_[expert] = false;
      --idle_count_;
    }
    std::size_t busy = events_[event].size() - missing_.size();  // residents that the event holds
    for (ExpertIndex const expert : missing_) {
      PlannedLoad load{expert, std::nullopt, event};
      if (idle_count_ + busy >= slots_) load.victim = evict();
      ++busy;
      loads.push_back(load);
    }
    for (ExpertIndex const expert : events_[event]) {
      ++cursor_[expert];
      rank_[expert] = next_rank_;
      add_idle(expert);
    }
    ++next_rank_;
  }

  std::span<ExpertSet const> events_;
  std::vector<std::size_t> uses_;    // event numbers, one expert's after the other's
  std::vector<std::size_t> ends_;    // per expert, past its last use in uses_
  std::vector<std::size_t> cursor_;  // per expert, its next use in uses_
  std::vector<std::uint64_t> rank_;  // per expert, when it was used last
  std::vector<bool> idle_;           // per expert: resident, outside the current event
  std::size_t slots_;
  std::uint64_t next_rank_ = 1;
  std::size_t idle_count_ = 0;        // of them
  std::vector<Key> by_key_;           // a heap of the idle ones, and of entries that are out of date
  std::vector<ExpertIndex> missing_;  // of the current event
};

}  // namespace

std::vector<PlannedLoad> belady_schedule(std::span<ExpertSet const> events, std::span<ExpertIndex const> resident,
                                         std::uint32_t experts, std::uint32_t slots,
                                         std::span<std::uint64_t const> last_use, std::size_t most_loads) {
  return Simulation(events, resident, experts, slots, last_use).run(most_loads);
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
