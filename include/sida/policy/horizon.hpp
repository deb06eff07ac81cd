#pragma once

#include <cstdint>
#include <deque>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "sida/core/api.hpp"

namespace sida::inline v0 {

/// An expert as a dense number: experts of layer 0, then of layer 1, and so on. Policies see nothing else.
using ExpertIndex = std::uint32_t;

/// Which planned events a plan's batch has left. Given out by `Horizon::append`.
enum class PlanId : std::uint64_t { none = 0 };

/// The known future: planned demand events in the order in which they will happen. Each is a sorted set of
/// experts that fits the slots at once. Pure data; not thread-safe. Where memory runs out it throws, and is as before.
class SIDA_API Horizon {
 public:
  static constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();

  explicit Horizon(std::uint32_t experts) : uses_(experts) {}

  /// Appends the events of one plan, in order. Each is sorted and without duplicates; sets of more than `slots`
  /// experts are cut into consecutive parts of at most that many, all under the event's number.
  PlanId append(std::vector<std::vector<ExpertIndex>> const& events, std::uint32_t slots);

  /// Puts events that fit the slots ahead of all that is planned: the later waves of one that is happening now.
  PlanId prepend(std::vector<std::span<ExpertIndex const>> const& events);

  /// Event `event` of `plan` (its number in `append`) happens now: it and all earlier ones of
  /// the plan leave the horizon.
  /// @return the experts that the plan had named for this event (sorted), or nothing when it had no such event.
  std::optional<std::vector<ExpertIndex>> arrive(PlanId plan, std::uint32_t event);

  /// Whether events of `plan` before `event` are still to come: when that arrives, they won't.
  bool has_before(PlanId plan, std::uint32_t event) const noexcept;

  /// Forgets what is left of a plan. @return whether anything was.
  bool drop(PlanId plan);
  void clear();

  struct Event {
    PlanId plan;
    std::uint32_t event;     ///< its number in the plan; parts of one event share it
    std::uint64_t position;  ///< strictly increasing along the horizon
    std::vector<ExpertIndex> experts;
    bool demanded = false;  ///< not a guess: a later wave of an event that has begun
  };
  /// In the order of use.
  std::deque<Event> const& events() const noexcept { return events_; }
  bool empty() const noexcept { return events_.empty(); }

  /// Position of the first planned event that uses `expert`; kNever when there is none.
  std::uint64_t next_use(ExpertIndex expert) const noexcept {
    auto const& uses = uses_[expert];
    return uses.empty() ? kNever : uses.front();
  }

 private:
  /// So that `add_uses` needs no memory.
  void make_room(Event const& event);
  void add_uses(Event const& event) noexcept;
  void remove_uses(Event const& event) noexcept;

  std::deque<Event> events_;
  std::vector<std::vector<std::uint64_t>> uses_;          // per expert, ascending positions
  std::uint64_t next_position_ = std::uint64_t{1} << 62;  // room below for prepended events
  std::uint64_t next_plan_ = 1;
};

}  // namespace sida::inline v0
