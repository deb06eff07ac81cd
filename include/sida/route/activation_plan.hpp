#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sida/core/api.hpp"
#include "sida/core/dtype.hpp"
#include "sida/core/expert_id.hpp"
#include "sida/route/routing.hpp"

namespace sida::inline v0 {

/// The paper's hash table: predicted routings of all MoE layers for one batch, plus each layer's expert set.
/// Compact: 4 bytes per token, layer and rank.
struct ActivationPlan {
  struct Layer {
    std::vector<std::uint16_t> experts;  ///< [tokens, k], kNoExpert = absent; empty when only the set is known
    std::vector<fp16> alphas;            ///< [tokens, k] or empty
    std::vector<ExpertId> expert_set;    ///< ascending, distinct
  };
  std::int64_t tokens = 0;
  std::int64_t k = 0;
  std::vector<Layer> layers;  ///< one per MoE layer; empty = nothing is known

  bool empty() const noexcept { return layers.empty(); }
};

/// The distinct experts of a routing, ascending.
SIDA_API std::vector<ExpertId> expert_set(std::uint32_t layer, Matrix<std::uint16_t const> experts);

}  // namespace sida::inline v0
