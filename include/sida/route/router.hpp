#pragma once

#include <concepts>
#include <cstdint>

#include "sida/core/api.hpp"
#include "sida/core/matrix.hpp"
#include "sida/core/result.hpp"
#include "sida/route/routing.hpp"

namespace sida::inline v0 {

/// Turns a router's logits into a routing. `logits`: [tokens, experts]; `out`: [tokens, k()], filled whole.
/// Padding tokens get kNoExpert at weight 0. Pure: a token's row depends on nothing but the logits of its own sequence.
template <class R>
concept Router = requires(R const& router, Matrix<float const> logits, TokenLayout const& layout, Routing<> out) {
  { router.k() }
  noexcept->std::convertible_to<std::int64_t>;
  { router.route(logits, layout, out) } -> std::same_as<Status>;
};

/// What happens to a token beyond an expert's capacity (tokens of one sequence, in sequence order).
enum class CapacityRule : std::uint8_t {
  none,     ///< no capacity
  hf,       ///< transformers 5.24: its MoE output is 0
  hf_4_32,  ///< transformers 4.32 to 4.40: its MoE output is gate * input
};

/// Switch's top-1: softmax in float32, the highest probability (lowest id on a tie) is the gate.
/// Experts: at most 65535. @return invalid_argument for shapes that don't fit, for a negative capacity, and for logits
/// with NaN or +infinity, naming the token. Reentrant.
class SIDA_API SwitchRouter {
 public:
  SwitchRouter(CapacityRule rule, std::int64_t capacity) noexcept : rule_(rule), capacity_(capacity) {}
  std::int64_t k() const noexcept { return 1; }
  CapacityRule rule() const noexcept { return rule_; }
  std::int64_t capacity() const noexcept { return capacity_; }
  Status route(Matrix<float const> logits, TokenLayout const& layout, Routing<> out) const;

 private:
  CapacityRule rule_;
  std::int64_t capacity_;
};

/// Softmax in float32 over all experts, the k highest (ties to the lowest id), in descending order.
/// @return invalid_argument as `SwitchRouter`, and when k is not from 1 to the number of experts. Reentrant.
class SIDA_API TopKSoftmaxRouter {
 public:
  /// Whether the k weights are divided by their sum (Mixtral, Qwen3-MoE) or left as they are (OLMoE).
  enum class Weights : std::uint8_t { as_softmax, renormalised };
  TopKSoftmaxRouter(std::int64_t k, Weights weights) noexcept : k_(k), weights_(weights) {}
  std::int64_t k() const noexcept { return k_; }
  Weights weights() const noexcept { return weights_; }
  Status route(Matrix<float const> logits, TokenLayout const& layout, Routing<> out) const;

 private:
  std::int64_t k_;
  Weights weights_;
};

static_assert(Router<SwitchRouter>);
static_assert(Router<TopKSoftmaxRouter>);

}  // namespace sida::inline v0
