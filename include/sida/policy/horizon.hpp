#pragma once

#include <cstdint>
#include <deque>
#include <limits>
#include <span>
#include <vector>

#include "sida/core/api.hpp"

namespace sida::inline v0 {

/// An expert as a dense number: experts of layer 0, then of layer 1, and so on. Policies see nothing else.
using ExpertIndex = std::uint32_t;

/// Which planned events a plan's batch has left. Given out by `Horizon::append`.
enum class PlanId : std::uint64_t { none = 0 };

/// The known future: planned demand events in the order in which they will happen. Each is a sorted set of
/// experts that fits the slots at once. Pure data; not thread-safe.
class SIDA_API Horizon {
 public:
  static constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();

  explicit Horizon(std::uint32_t experts) : next_use_(experts) {}

  /// Appends the events of one plan, in order. Each is sorted and without duplicates; sets of more than `slots`
  /// experts are cut into consecutive parts of at most that many, all under the event's number.
  PlanId append(std::vector<std::vector<ExpertIndex>> events, std::uint32_t slots);

  /// The same, ahead of all that is planned: the later waves of an event that is happening now.
  PlanId prepend(std::vector<std::vector<ExpertIndex>> events, std::uint32_t slots);

  /// Event `event` of `plan` (its number in `append`) happens now, and demands `experts` (sorted): it and all
  /// earlier events of the plan leave the horizon.
  /// @return true when the horizon held this event, as exactly this set of experts.
  bool arrive(PlanId plan, std::uint32_t event, std::span<ExpertIndex const> experts);

  /// Forgets a plan, wherever it stands.
  void drop(PlanId plan);
  void clear();

  struct Event {
    PlanId plan;
    std::uint32_t event;     ///< its number in the plan; parts of one event share it
    std::uint64_t position;  ///< strictly increasing along the horizon
    std::vector<ExpertIndex> experts;
  };
  /// In the order of use.
  std::deque<Event> const& events() const noexcept { return events_; }
  bool empty() const noexcept { return events_.empty(); }

  /// Position of the first planned event that uses `expert`; kNever when there is none.
  std::uint64_t next_use(ExpertIndex expert) const noexcept {
    auto const& uses = next_use_[expert];
    return uses.empty() ? kNever : uses.front();
  }

 private:
  void forget_uses(Event const& event);
  std::vector<Event> cut(PlanId plan, std::vector<std::vector<ExpertIndex>> events, std::uint32_t slots) const;

  std::deque<Event> events_;
  std::vector<std::deque<std::uint64_t>> next_use_;       // per expert, ascending positions
  std::uint64_t next_position_ = std::uint64_t{1} << 62;  // room below for prepended events
  std::uint64_t next_plan_ = 1;
};

}  // namespace sida::inline v0
