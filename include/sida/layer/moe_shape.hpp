#pragma once

#include <cstddef>
#include <cstdint>

#include "sida/core/api.hpp"
#include "sida/core/expert_layout.hpp"

namespace sida::inline v0 {

/// One MoE layer of a model.
struct MoeShape {
  std::uint32_t layer = 0;    ///< MoE layer, counted from 0
  std::uint32_t experts = 0;  ///< of this layer; at most 65535
  std::int64_t k = 1;         ///< experts per token
  FfnKind kind = FfnKind::relu;
  std::int64_t d_model = 0;
  std::int64_t d_ff = 0;
};

/// Bytes of workspace that one step of this layer takes for `tokens` tokens; 0 for dimensions below 1.
SIDA_API std::size_t moe_workspace_bytes(MoeShape const& shape, std::int64_t tokens) noexcept;

}  // namespace sida::inline v0
