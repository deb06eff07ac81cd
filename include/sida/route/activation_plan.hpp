#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sida/core/api.hpp"
#include "sida/core/dtype.hpp"
#include "sida/core/expert_id.hpp"
#include "sida/core/result.hpp"
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

/// Layer `layer` of `plan` as the routing itself: where no router runs, the plan decides. `out`: [tokens, k], written
/// whole; an absent expert gets weight 0. @return invalid_argument when the plan doesn't name experts and alphas for
/// that layer, or for other tokens or another k.
SIDA_API Status route_by_plan(ActivationPlan const& plan, std::uint32_t layer, Routing<> out);

/// The distinct experts of a routing, ascending.
SIDA_API std::vector<ExpertId> expert_set(std::uint32_t layer, Matrix<std::uint16_t const> experts);

}  // namespace sida::inline v0
