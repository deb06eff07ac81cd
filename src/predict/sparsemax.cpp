#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "sida/predict/lstm_hash.hpp"

namespace sida::inline v0 {
namespace {

/// What is subtracted from every score, once the largest was: so that large scores leave the 1 its digits.
/// `ordered`: descending.
double threshold(SparsemaxRule rule, std::span<float const> ordered) noexcept {
  double sum = 0;
  double support_sum = 0;
  double support = 1;
  for (std::size_t k = 1; k <= ordered.size(); ++k) {
    double const score = static_cast<double>(ordered[k - 1]) - static_cast<double>(ordered[0]);
    sum += score;
    if (1 + static_cast<double>(k) * score <= sum) break;  // none of the smaller ones is in the support either
    support = static_cast<double>(k);
    support_sum = sum;
  }
  return (support_sum - (rule == SparsemaxRule::exact ? 1 : 2)) / support;
}

}  // namespace

void sparsemax(SparsemaxRule rule, std::span<float> row, std::span<float> scratch) noexcept {
  if (row.empty()) return;
  if (!std::ranges::all_of(row, [](float score) { return std::isfinite(score); })) {
    std::ranges::fill(row, std::numeric_limits<float>::quiet_NaN());  // what has no order has no projection
    return;
  }
  auto const ordered = scratch.first(row.size());
  std::ranges::copy(row, ordered.begin());
  std::ranges::sort(ordered, std::greater<>());
  auto const largest = static_cast<double>(ordered[0]);
  double const tau = threshold(rule, ordered);
  for (float& score : row) score = static_cast<float>(std::max(static_cast<double>(score) - largest - tau, 0.0));
  if (rule == SparsemaxRule::exact) return;
  double const sum = std::accumulate(row.begin(), row.end(), 0.0);
  for (float& weight : row) weight = static_cast<float>(static_cast<double>(weight) / sum);
}

}  // namespace sida::inline v0
