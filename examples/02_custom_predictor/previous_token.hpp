#pragma once

#include <mutex>
#include <utility>
#include <vector>

#include <sida/predict/predictor.hpp>

/// Guesses that each token takes the experts of the token before it. A decoder's hidden state moves slowly, so this is
/// right far more often than chance; where it is wrong, the store loads what the router wants.
class PreviousTokenPredictor {
 public:
  sida::Result<sida::ActivationPlan> predict(sida::PredictorInput const& input) {
    std::lock_guard const lock(mutex_);
    sida::ActivationPlan plan{.tokens = input.batch.tokens(), .k = 0, .layers = last_};  // sets only
    return plan;
  }

  /// experts: [tokens, k]
  void observe(std::uint64_t, std::uint32_t layer, sida::Matrix<std::uint16_t const> experts) {
    auto set = sida::expert_set(layer, experts);
    std::lock_guard const lock(mutex_);
    if (layer >= last_.size()) last_.resize(layer + 1);
    last_[layer].expert_set = std::move(set);
  }

 private:
  std::mutex mutex_;  // in sida's own pipeline the two are called from different threads
  std::vector<sida::ActivationPlan::Layer> last_;
};
static_assert(sida::Predictor<PreviousTokenPredictor>);
