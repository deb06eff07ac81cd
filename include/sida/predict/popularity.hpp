#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "sida/core/api.hpp"
#include "sida/predict/predictor.hpp"

namespace sida::inline v0 {

/// Predicts for each layer the experts that most tokens went to so far, as many as an event of that layer had
/// distinct experts on average, rounded up; lower ids win ties. Plans hold sets only. Before anything was observed,
/// and for a batch without tokens, the plan is empty. Thread-safe.
class SIDA_API PopularityPredictor {
 public:
  Result<ActivationPlan> predict(PredictorInput const& input) const;
  void observe(std::uint64_t batch, std::uint32_t layer, Matrix<std::uint16_t const> experts);

 private:
  struct Layer {
    std::vector<std::uint64_t> tokens;  // [experts seen so far]
    std::uint64_t events = 0;
    std::uint64_t distinct = 0;  // summed over events
  };
  static std::vector<ExpertId> most_used(std::uint32_t layer, Layer const& seen);

  mutable std::mutex mutex_;
  std::vector<Layer> layers_;
};
static_assert(Predictor<PopularityPredictor>);

}  // namespace sida::inline v0
