#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "sida/core/api.hpp"
#include "sida/core/result.hpp"
#include "sida/predict/predictor.hpp"

namespace sida::inline v0 {

/// How often the first experts that a router took were the first guess, or among the first two or three. Real tokens
/// only: what a router sent nowhere (padding, or over an expert's capacity) is not counted.
struct HitRates {
  struct Layer {
    std::uint64_t tokens = 0;
    std::uint64_t top1 = 0;
    std::uint64_t top2 = 0;
    std::uint64_t top3 = 0;
  };
  std::vector<Layer> layers;  ///< one per MoE layer

  /// Mean over the layers of a layer's rate; nothing when no layer has tokens.
  SIDA_API std::optional<double> mean_top1() const noexcept;
  SIDA_API std::optional<double> mean_top2() const noexcept;
  SIDA_API std::optional<double> mean_top3() const noexcept;
};

/// Holds plans against what routers then chose. Thread-safe.
class SIDA_API HitRateMeter {
 public:
  /// A plan was made for batch `batch`. One that names no experts per token is not judged.
  void planned(std::uint64_t batch, ActivationPlan const& plan);
  /// The router chose `experts`, [tokens, k], of which the first column is judged. A batch is judged once, layer by
  /// layer; it is forgotten after its last layer.
  void observed(std::uint64_t batch, std::uint32_t layer, Matrix<std::uint16_t const> experts);
  HitRates rates() const;

 private:
  struct Guesses {
    std::int64_t k = 0;
    std::vector<std::vector<std::uint16_t>> layers;  // [layers][tokens * k]
  };
  mutable std::mutex mutex_;
  std::map<std::uint64_t, Guesses> pending_;
  HitRates rates_;
};

/// A predictor whose plans are judged on their way.
template <Predictor P>
class JudgedPredictor {
 public:
  /// `meter` must outlive the predictor.
  JudgedPredictor(P predictor, HitRateMeter& meter) : predictor_(std::move(predictor)), meter_(&meter) {}
  Result<ActivationPlan> predict(PredictorInput const& input) {
    Result<ActivationPlan> plan = predictor_.predict(input);
    if (plan) meter_->planned(input.batch.number, *plan);
    return plan;
  }
  void observe(std::uint64_t batch, std::uint32_t layer, Matrix<std::uint16_t const> experts) {
    meter_->observed(batch, layer, experts);
    predictor_.observe(batch, layer, experts);
  }

 private:
  P predictor_;
  HitRateMeter* meter_;
};

}  // namespace sida::inline v0
