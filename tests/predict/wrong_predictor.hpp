#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "sida/predict/oracle.hpp"

namespace sida::test {

/// Knows what the routers will choose and predicts all the other experts: the worst plan that is still well-formed.
class WrongPredictor {
 public:
  WrongPredictor(RecordedRouting recorded, std::vector<std::uint32_t> experts_per_layer)
      : oracle_(std::move(recorded)), experts_per_layer_(std::move(experts_per_layer)) {}

  Result<ActivationPlan> predict(PredictorInput const& input) const {
    Result<ActivationPlan> plan = oracle_.predict(input);
    if (!plan) return plan;
    for (std::uint32_t l = 0; l < plan->layers.size(); ++l) {
      ActivationPlan::Layer& layer = plan->layers[l];
      std::vector<bool> chosen(experts_per_layer_[l], false);
      for (ExpertId const id : layer.expert_set) chosen[id.expert] = true;
      layer = {};
      for (std::uint32_t e = 0; e < chosen.size(); ++e) {
        if (!chosen[e]) layer.expert_set.push_back({l, e});
      }
    }
    plan->k = 0;
    return plan;
  }
  void observe(std::uint64_t, std::uint32_t, Matrix<std::uint16_t const>) {}

 private:
  OraclePredictor oracle_;
  std::vector<std::uint32_t> experts_per_layer_;
};
static_assert(Predictor<WrongPredictor>);

}  // namespace sida::test
