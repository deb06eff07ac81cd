#pragma once

#include <concepts>
#include <cstdint>

#include "sida/core/result.hpp"
#include "sida/route/activation_plan.hpp"
#include "sida/route/token_batch.hpp"

namespace sida::inline v0 {

/// What a predictor sees of a batch, before its forward pass.
struct PredictorInput {
  TokenBatch const& batch;
  Matrix<float const> embeddings;  ///< [tokens, d_model], or empty when the caller has none
};

/// Guesses routings ahead of the router. `predict` runs on the hash-building thread and `observe` on the inference
/// thread, at the same time; the predictor sees to it. An empty plan is a fine answer.
template <class P>
concept Predictor = requires(P& predictor, PredictorInput const& input, std::uint64_t batch, std::uint32_t layer,
                             Matrix<std::uint16_t const> experts) {
  { predictor.predict(input) } -> std::same_as<Result<ActivationPlan>>;
  /// What the router said of one layer of a batch. experts: [tokens, k]
  { predictor.observe(batch, layer, experts) } -> std::same_as<void>;
};

/// Predicts nothing.
class NoPredictor {
 public:
  Result<ActivationPlan> predict(PredictorInput const&) { return ActivationPlan{}; }
  void observe(std::uint64_t, std::uint32_t, Matrix<std::uint16_t const>) {}
};
static_assert(Predictor<NoPredictor>);

}  // namespace sida::inline v0
