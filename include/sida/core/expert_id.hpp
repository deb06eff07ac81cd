#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>

#include "sida/core/api.hpp"

namespace sida::inline v0 {

/// Names one expert. `layer` counts the MoE layers of the model from 0, not its blocks.
struct ExpertId {
  std::uint32_t layer = 0;
  std::uint32_t expert = 0;
  friend auto operator<=>(ExpertId const&, ExpertId const&) = default;
};

/// "layer 3 expert 17", for messages.
SIDA_API std::string to_string(ExpertId id);

/// A fixed-address place for one expert in a fast tier.
enum class SlotId : std::uint32_t {};

/// Where memory is; ordered from slowest to fastest.
enum class Tier : std::uint8_t { disk, host, device };

}  // namespace sida::inline v0

template <>
struct std::hash<sida::ExpertId> {
  std::size_t operator()(sida::ExpertId id) const noexcept {
    return std::hash<std::uint64_t>()(std::uint64_t{id.layer} << 32 | id.expert);
  }
};
