#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#include "sida/policy/belady.hpp"
#include "sida/policy/horizon.hpp"
#include "store/slot_table.hpp"

namespace sida::inline v0 {

/// Decides what to load ahead, and whose slot it may take. Never takes one that the current event (pinned) or an
/// earlier planned event needs. Pure; the store calls it under its lock.
class Prefetcher {
 public:
  enum class Rule : std::uint8_t {
    /// The next missing expert, as soon as the store's policy has a victim that is needed later.
    eager,
    /// The loads and victims of Belady's schedule over the horizon, each as soon as its victim is free: no more
    /// loads than on demand with the same knowledge, where eager loading may give up what it will need. Holds while
    /// events arrive in the order of the horizon.
    planned,
  };

  struct Move {
    ExpertIndex load;
    std::optional<ExpertIndex> victim;  ///< absent when a free slot takes it
    bool demanded = false;              ///< for a later wave of an event that has begun
  };

  explicit Prefetcher(Rule rule) noexcept : rule_(rule) {}

  /// The horizon changed, or the residents did so by something else than the schedule.
  void replan() noexcept { stale_ = true; }
  /// The next load to start, if any may start now. The caller carries it out.
  std::optional<Move> next(SlotTable const& table, Horizon const& horizon);
  /// A demand loads a missing `expert` now: takes the load off the schedule. @return the victim that the schedule names
  /// for it, if it may be evicted; nothing when the policy has to choose.
  std::optional<ExpertIndex> demand(ExpertIndex expert, SlotTable const& table, Horizon const& horizon);

 private:
  struct Load {
    Move move;
    std::uint64_t position;  // of the event that needs it
  };
  std::optional<Move> next_eager(SlotTable const& table, Horizon const& horizon) const;
  std::optional<Move> next_planned(SlotTable const& table, Horizon const& horizon);
  void plan(SlotTable const& table, Horizon const& horizon);

  Rule rule_;
  bool stale_ = true;
  std::deque<Load> schedule_;  // by position
  bool is_cut_ = false;        // the horizon may need loads after those of the schedule
};

}  // namespace sida::inline v0
