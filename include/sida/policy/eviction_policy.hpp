#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "sida/core/api.hpp"
#include "sida/policy/horizon.hpp"

namespace sida::inline v0 {

/// Which expert leaves when another needs its slot. A cache of slots, or a replay of a trace, tells a policy what
/// happens and asks for victims. Pure: no I/O, no clock, no threads; equal calls give equal answers. Policies
/// count nothing that is reported; the store does. Not thread-safe.
class SIDA_API EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  virtual std::string_view name() const noexcept = 0;

  /// One demand event needs `experts` (ascending, without duplicates). Called once per event, before victims are
  /// chosen for it.
  virtual void touch(std::span<ExpertIndex const> experts) = 0;
  /// `expert` was given a slot, by demand or by prefetch.
  virtual void insert(ExpertIndex expert) = 0;
  /// `expert` lost its slot.
  virtual void erase(ExpertIndex expert) = 0;
  /// When `expert` was touched or inserted last, as a rank: smaller is longer ago, 0 is never.
  virtual std::uint64_t last_use(ExpertIndex expert) const noexcept = 0;

  /// Picks one of `candidates` (not empty, ascending): resident, unpinned, outside the event. `horizon` is the
  /// known future, empty when there is no plan. @return an element of `candidates`; ties go to the lowest.
  virtual ExpertIndex choose_victim(std::span<ExpertIndex const> candidates, Horizon const& horizon) const = 0;
};

enum class PolicyKind : std::uint8_t { fifo, lru, lfu, lfru, next_use };

/// "fifo", "lru", "lfu", "lfru", "next-use"; and back.
SIDA_API std::string_view to_string(PolicyKind kind) noexcept;
SIDA_API std::optional<PolicyKind> parse_policy(std::string_view name) noexcept;

struct PolicyOptions {
  std::vector<std::uint32_t> experts_per_layer;
  std::uint32_t slots = 0;
  /// LFU, LFRU: a count loses this factor at each later event of its layer.
  double decay = 0.98;
  /// LFRU: a layer keeps this share of an equal part of the slots while another layer has more.
  double layer_floor = 0.5;
};

SIDA_API std::unique_ptr<EvictionPolicy> make_policy(PolicyKind kind, PolicyOptions const& options);

}  // namespace sida::inline v0
