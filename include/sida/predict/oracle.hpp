#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "sida/core/api.hpp"
#include "sida/predict/predictor.hpp"

namespace sida::inline v0 {

/// What the routers of a run chose, by the number of the batch.
struct RecordedRouting {
  struct Layer {
    std::int64_t k = 0;
    std::vector<std::uint16_t> experts;  ///< [tokens, k]; empty when the layer was not seen
  };
  std::map<std::uint64_t, std::vector<Layer>> batches;  ///< one `Layer` per MoE layer
};

/// A predictor that predicts nothing and remembers what it observes, for an OraclePredictor of a second run.
/// Thread-safe.
class SIDA_API RoutingRecorder {
 public:
  Result<ActivationPlan> predict(PredictorInput const&) { return ActivationPlan{}; }
  /// A layer that is observed again replaces what was seen of it.
  void observe(std::uint64_t batch, std::uint32_t layer, Matrix<std::uint16_t const> experts);
  /// A copy of all that was observed so far.
  RecordedRouting recorded() const;

 private:
  mutable std::mutex mutex_;
  RecordedRouting recorded_;
};
static_assert(Predictor<RoutingRecorder>);

/// Plays back recorded routings: the perfect prediction, as an upper bound for the others.
class SIDA_API OraclePredictor {
 public:
  explicit OraclePredictor(RecordedRouting recorded) : recorded_(std::move(recorded)) {}
  /// The plan is empty for a batch that was not recorded; a layer that was not recorded has an empty set.
  /// @return invalid_argument when the batch was recorded with another number of tokens, or its layers differ in k.
  Result<ActivationPlan> predict(PredictorInput const& input) const;
  void observe(std::uint64_t, std::uint32_t, Matrix<std::uint16_t const>) {}

 private:
  RecordedRouting recorded_;
};
static_assert(Predictor<OraclePredictor>);

}  // namespace sida::inline v0
