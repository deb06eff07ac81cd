#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

#include "sida/predict/predictor.hpp"

namespace sida::inline v0 {

/// Owns some predictor, chosen at run time. Move-only; a predictor that was moved from is not called.
class AnyPredictor {
 public:
  /// Predicts nothing.
  AnyPredictor() : AnyPredictor(NoPredictor()) {}

  template <class P>
  requires(!std::is_same_v<std::remove_cvref_t<P>, AnyPredictor> && Predictor<std::remove_cvref_t<P>>)
      AnyPredictor(P&& predictor)  // NOLINT(google-explicit-constructor)
      : held_(std::make_unique<Held<std::remove_cvref_t<P>>>(std::forward<P>(predictor))) {}

  /// Makes the predictor in place, for those that do not move.
  template <class P, class... Args>
  requires(Predictor<P>) static AnyPredictor make(Args&&... args) {
    AnyPredictor made(nullptr);
    made.held_ = std::make_unique<Held<P>>(std::forward<Args>(args)...);
    return made;
  }

  Result<ActivationPlan> predict(PredictorInput const& input) { return held_->predict(input); }
  void observe(std::uint64_t batch, std::uint32_t layer, Matrix<std::uint16_t const> experts) {
    held_->observe(batch, layer, experts);
  }

 private:
  struct Interface {
    virtual ~Interface() = default;
    virtual Result<ActivationPlan> predict(PredictorInput const& input) = 0;
    virtual void observe(std::uint64_t batch, std::uint32_t layer, Matrix<std::uint16_t const> experts) = 0;
  };
  template <class P>
  struct Held final : Interface {
    template <class... Args>
    explicit Held(Args&&... args) : predictor(std::forward<Args>(args)...) {}
    Result<ActivationPlan> predict(PredictorInput const& input) override { return predictor.predict(input); }
    void observe(std::uint64_t batch, std::uint32_t layer, Matrix<std::uint16_t const> experts) override {
      predictor.observe(batch, layer, experts);
    }
    P predictor;
  };
  explicit AnyPredictor(std::nullptr_t) noexcept {}

  std::unique_ptr<Interface> held_;
};
static_assert(Predictor<AnyPredictor>);

}  // namespace sida::inline v0
