#include "sida/predict/oracle.hpp"

#include <string>

namespace sida::inline v0 {

void RoutingRecorder::observe(std::uint64_t batch, std::uint32_t layer, Matrix<std::uint16_t const> experts) {
  RecordedRouting::Layer seen{.k = experts.cols, .experts = {}};
  seen.experts.reserve(static_cast<std::size_t>(experts.rows * experts.cols));
  for (std::int64_t token = 0; token < experts.rows; ++token) {
    auto const row = experts.row(token);
    seen.experts.insert(seen.experts.end(), row.begin(), row.end());
  }
  std::lock_guard const lock(mutex_);
  auto& layers = recorded_.batches[batch];
  if (layers.size() <= layer) layers.resize(layer + std::size_t{1});
  layers[layer] = std::move(seen);
}

RecordedRouting RoutingRecorder::recorded() const {
  std::lock_guard const lock(mutex_);
  return recorded_;
}

Result<ActivationPlan> OraclePredictor::predict(PredictorInput const& input) const {
  ActivationPlan plan;
  auto const found = recorded_.batches.find(input.batch.number);
  if (found == recorded_.batches.end()) return plan;
  plan.tokens = input.batch.tokens();
  for (RecordedRouting::Layer const& seen : found->second) {
    auto const layer = static_cast<std::uint32_t>(plan.layers.size());
    ActivationPlan::Layer& planned = plan.layers.emplace_back();
    if (seen.experts.empty()) continue;
    if (plan.k == 0) plan.k = seen.k;
    if (seen.k != plan.k || std::ssize(seen.experts) != plan.tokens * plan.k) {
      return Error(Errc::invalid_argument,
                   "oracle: batch " + std::to_string(input.batch.number) + " has " + std::to_string(plan.tokens) +
                       " tokens, and layer " + std::to_string(layer) + " was recorded with " +
                       std::to_string(seen.experts.size()) + " experts, " + std::to_string(seen.k) + " per token");
    }
    planned.experts = seen.experts;
    planned.expert_set = expert_set(layer, {seen.experts.data(), plan.tokens, plan.k});
  }
  return plan;
}

}  // namespace sida::inline v0
