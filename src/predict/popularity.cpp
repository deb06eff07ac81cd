#include "sida/predict/popularity.hpp"

#include <algorithm>
#include <numeric>

namespace sida::inline v0 {

Result<ActivationPlan> PopularityPredictor::predict(PredictorInput const& input) const {
  ActivationPlan plan;
  if (input.batch.tokens() == 0) return plan;
  std::lock_guard const lock(mutex_);
  if (layers_.empty()) return plan;
  plan.tokens = input.batch.tokens();
  for (Layer const& seen : layers_) {
    auto const layer = static_cast<std::uint32_t>(plan.layers.size());
    plan.layers.emplace_back().expert_set = most_used(layer, seen);
  }
  return plan;
}

std::vector<ExpertId> PopularityPredictor::most_used(std::uint32_t layer, Layer const& seen) {
  if (seen.events == 0) return {};
  std::vector<std::uint32_t> ids(seen.tokens.size());
  std::iota(ids.begin(), ids.end(), 0U);
  std::stable_sort(ids.begin(), ids.end(), [&](auto a, auto b) { return seen.tokens[a] > seen.tokens[b]; });
  ids.resize(static_cast<std::size_t>((seen.distinct + seen.events - 1) / seen.events));
  std::sort(ids.begin(), ids.end());
  std::vector<ExpertId> set;
  for (std::uint32_t const id : ids) set.push_back({layer, id});
  return set;
}

void PopularityPredictor::observe(std::uint64_t, std::uint32_t layer, Matrix<std::uint16_t const> experts) {
  std::vector<ExpertId> const set = expert_set(layer, experts);
  if (set.empty()) return;
  std::lock_guard const lock(mutex_);
  if (layers_.size() <= layer) layers_.resize(layer + std::size_t{1});
  Layer& seen = layers_[layer];
  if (seen.tokens.size() <= set.back().expert) seen.tokens.resize(set.back().expert + std::size_t{1});
  ++seen.events;
  seen.distinct += set.size();
  for (std::int64_t token = 0; token < experts.rows; ++token) {
    for (std::uint16_t const expert : experts.row(token)) {
      if (expert != kNoExpert) ++seen.tokens[expert];
    }
  }
}

}  // namespace sida::inline v0
