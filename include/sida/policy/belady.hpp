#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "sida/core/api.hpp"
#include "sida/policy/horizon.hpp"

namespace sida::inline v0 {

/// A demand event: distinct experts, ascending.
using ExpertSet = std::span<ExpertIndex const>;

/// One load of an optimal schedule.
struct PlannedLoad {
  ExpertIndex load;
  std::optional<ExpertIndex> victim;  ///< absent when a free slot takes the load
  std::size_t event;                  ///< the number of the event that needs `load`
};

/// Belady's rule with forced admission, per event: hits are counted against the state before an event, and victims
/// come from outside it, furthest next use first (never is furthest; among those the least recently used, then the
/// lowest). `resident` (any order, distinct) holds at most `slots` experts, each of `events` at most `slots`.
/// `last_use[e]` ranks residents that are not used again: smaller is older. May be empty. Ends with the event that
/// brings the loads to `most_loads`.
SIDA_API std::vector<PlannedLoad> belady_schedule(std::span<ExpertSet const> events,
                                                  std::span<ExpertIndex const> resident, std::uint32_t experts,
                                                  std::uint32_t slots, std::span<std::uint64_t const> last_use = {},
                                                  std::size_t most_loads = std::numeric_limits<std::size_t>::max());

/// Cuts sets of more than `slots` experts into consecutive ones of at most that many.
SIDA_API std::vector<ExpertSet> cut_events(std::span<std::vector<ExpertIndex> const> events, std::uint32_t slots);

/// The least loads that any schedule needs for `events` (cut as by `cut_events`), starting empty. This times the slot
/// bytes is MIN.
SIDA_API std::uint64_t belady_min_loads(std::span<std::vector<ExpertIndex> const> events, std::uint32_t experts,
                                        std::uint32_t slots);

}  // namespace sida::inline v0
