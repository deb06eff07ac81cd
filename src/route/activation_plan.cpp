#include "sida/route/activation_plan.hpp"

#include <algorithm>
#include <string>

namespace sida::inline v0 {

Status route_by_plan(ActivationPlan const& plan, std::uint32_t layer, Routing<> out) {
  auto const at = "plan of MoE layer " + std::to_string(layer);
  if (layer >= plan.layers.size()) {
    return {Errc::invalid_argument, at + ": there are " + std::to_string(plan.layers.size()) + " layers"};
  }
  ActivationPlan::Layer const& planned = plan.layers[layer];
  if (plan.tokens != out.tokens() || plan.k != out.k()) {
    return {Errc::invalid_argument, at + ": [" + std::to_string(plan.tokens) + ", " + std::to_string(plan.k) +
                                        "], but the routing is [" + std::to_string(out.tokens()) + ", " +
                                        std::to_string(out.k()) + "]"};
  }
  auto const size = static_cast<std::size_t>(plan.tokens * plan.k);
  if (planned.experts.size() != size || planned.alphas.size() != size) {
    return {Errc::invalid_argument, at + ": it names no experts and weights for each token"};
  }
  for (std::int64_t token = 0; token < plan.tokens; ++token) {
    for (std::int64_t rank = 0; rank < plan.k; ++rank) {
      auto const from = static_cast<std::size_t>(token * plan.k + rank);
      std::uint16_t const expert = planned.experts[from];
      out.experts(token, rank) = expert;
      out.weights(token, rank) = expert == kNoExpert ? 0.0F : to_float(planned.alphas[from]);
    }
  }
  return {};
}

std::vector<ExpertId> expert_set(std::uint32_t layer, Matrix<std::uint16_t const> experts) {
  std::vector<ExpertId> set;
  set.reserve(static_cast<std::size_t>(experts.rows * experts.cols));
  for (std::int64_t token = 0; token < experts.rows; ++token) {
    for (std::uint16_t const expert : experts.row(token)) {
      if (expert != kNoExpert) set.push_back({layer, expert});
    }
  }
  std::ranges::sort(set);
  auto const repeated = std::ranges::unique(set);
  set.erase(repeated.begin(), repeated.end());
  return set;
}

}  // namespace sida::inline v0
