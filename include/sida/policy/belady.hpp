#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "sida/core/api.hpp"
#include "sida/policy/horizon.hpp"

namespace sida::inline v0 {

/// One load of an optimal schedule.
struct PlannedLoad {
  ExpertIndex load;
  std::optional<ExpertIndex> victim;  ///< absent when a free slot takes the load
  std::uint64_t position;             ///< of the event that needs `load`
};

/// Belady's rule with forced admission, per event: hits are counted against the state before an event, and victims
/// come from outside it, furthest next use first (never before all; among equals the least recently used, then the
/// lowest). `resident` (any order) holds at most `slots` experts, `events` at most `slots` each.
/// `last_use[e]` ranks experts that are not used again: smaller is older; may be empty.
SIDA_API std::vector<PlannedLoad> belady_schedule(std::span<Horizon::Event const* const> events,
                                                  std::span<ExpertIndex const> resident, std::uint32_t experts,
                                                  std::uint32_t slots, std::span<std::uint64_t const> last_use);

/// The least loads that any schedule needs for `events` (each sorted, of any size: larger ones are cut into
/// consecutive events of at most `slots`), starting empty. This times the slot bytes is MIN.
SIDA_API std::uint64_t belady_min_loads(std::span<std::vector<ExpertIndex> const> events, std::uint32_t experts,
                                        std::uint32_t slots);

}  // namespace sida::inline v0
