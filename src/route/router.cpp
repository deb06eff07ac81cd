#include "sida/route/router.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/shape_text.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0 {

namespace {

Status check_layout(TokenLayout const& layout, std::int64_t tokens) {
  auto const& offsets = layout.sequence_offsets;
  if (offsets.empty() || offsets.front() != 0 || offsets.back() != tokens) {
    return {Errc::invalid_argument, "router: sequence offsets must go from 0 to " + std::to_string(tokens) + " tokens"};
  }
  if (!std::is_sorted(offsets.begin(), offsets.end())) {
    return {Errc::invalid_argument, "router: sequence offsets must not descend"};
  }
  if (!layout.real.empty() && std::ssize(layout.real) != tokens) {
    return {Errc::invalid_argument, "router: padding marks for " + std::to_string(layout.real.size()) + " of " +
                                        std::to_string(tokens) + " tokens"};
  }
  return {};
}

Status check(Matrix<float const> logits, TokenLayout const& layout, Routing<> out, std::int64_t k) {
  if (logits.cols < 1 || logits.cols > kNoExpert) {
    return {Errc::invalid_argument,
            "router: " + std::to_string(logits.cols) + " experts; from 1 to 65535 are possible"};
  }
  if (k < 1 || k > logits.cols) {
    return {Errc::invalid_argument,
            "router: cannot choose " + std::to_string(k) + " of " + std::to_string(logits.cols) + " experts"};
  }
  for (auto const& [rows, cols] :
       {std::pair(out.experts.rows, out.experts.cols), std::pair(out.weights.rows, out.weights.cols)}) {
    if (rows != logits.rows || cols != k) {
      return {Errc::invalid_argument, "router: a routing of " + detail::shape_text(rows, cols) + " where " +
                                          detail::shape_text(logits.rows, k) + " belongs"};
    }
  }
  return check_layout(layout, logits.rows);
}

/// probabilities: [experts]. Fails on NaN and +infinity, and when all logits are -infinity.
Status softmax(std::span<float const> logits, std::int64_t token, std::span<float> probabilities) {
  float highest = -std::numeric_limits<float>::infinity();
  for (float const logit : logits) highest = std::max(highest, logit);
  float sum = 0;
  for (std::size_t e = 0; e < logits.size(); ++e) {
    probabilities[e] = std::exp(logits[e] - highest);
    sum += probabilities[e];
  }
  if (!(sum >= 1)) {  // the highest gives exp(0); only NaN fails this
    return {Errc::invalid_argument, "router: the logits of token " + std::to_string(token) + " are not numbers"};
  }
  for (float& probability : probabilities) probability /= sum;
  return {};
}

}  // namespace

Status SwitchRouter::route(Matrix<float const> logits, TokenLayout const& layout, Routing<> out) const {
  SIDA_TRY(check(logits, layout, out, k()));
  if (rule_ != CapacityRule::none && capacity_ < 0) {
    return {Errc::invalid_argument, "router: an expert capacity of " + std::to_string(capacity_)};
  }
  std::vector<float> probabilities(static_cast<std::size_t>(logits.cols));
  std::vector<std::int64_t> used(static_cast<std::size_t>(logits.cols));  // of each expert's capacity
  for (std::size_t s = 0; s + 1 < layout.sequence_offsets.size(); ++s) {
    std::fill(used.begin(), used.end(), 0);
    for (std::int64_t t = layout.sequence_offsets[s]; t < layout.sequence_offsets[s + 1]; ++t) {
      out.experts(t, 0) = kNoExpert;
      out.weights(t, 0) = 0;
      if (!layout.is_real(t)) continue;
      SIDA_TRY(softmax(logits.row(t), t, probabilities));
      auto const best = std::max_element(probabilities.begin(), probabilities.end());
      auto const expert = static_cast<std::size_t>(best - probabilities.begin());
      bool const kept = rule_ == CapacityRule::none || used[expert]++ < capacity_;
      if (kept) out.experts(t, 0) = static_cast<std::uint16_t>(expert);
      if (kept || rule_ == CapacityRule::hf_4_32) out.weights(t, 0) = *best;
    }
  }
  return {};
}

Status TopKSoftmaxRouter::route(Matrix<float const> logits, TokenLayout const& layout, Routing<> out) const {
  SIDA_TRY(check(logits, layout, out, k_));
  std::vector<float> probabilities(static_cast<std::size_t>(logits.cols));
  for (std::int64_t t = 0; t < logits.rows; ++t) {
    std::span<std::uint16_t> const experts = out.experts.row(t);
    std::span<float> const weights = out.weights.row(t);
    std::fill(experts.begin(), experts.end(), kNoExpert);
    std::fill(weights.begin(), weights.end(), 0.0F);
    if (!layout.is_real(t)) continue;
    SIDA_TRY(softmax(logits.row(t), t, probabilities));
    // Insertion into a short descending list; an equal one goes after, since its id is higher.
    std::size_t found = 0;
    for (std::size_t e = 0; e < probabilities.size(); ++e) {
      if (found == weights.size() && !(probabilities[e] > weights[found - 1])) continue;
      std::size_t at = found < weights.size() ? found++ : found - 1;
      for (; at > 0 && probabilities[e] > weights[at - 1]; --at) {
        weights[at] = weights[at - 1];
        experts[at] = experts[at - 1];
      }
      weights[at] = probabilities[e];
      experts[at] = static_cast<std::uint16_t>(e);
    }
    if (weights_ == Weights::renormalised) {
      float sum = 0;
      for (float const weight : weights) sum += weight;
      for (float& weight : weights) weight /= sum;
    }
  }
  return {};
}

}  // namespace sida::inline v0
