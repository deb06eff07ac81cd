#include "cli/fidelity_measures.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cli/report.hpp"

namespace sida::cli {
namespace {

std::int64_t answer(std::span<float const> logits) { return std::ranges::max_element(logits) - logits.begin(); }

std::vector<double> log_softmax(std::span<float const> logits) {
  double const most = static_cast<double>(*std::ranges::max_element(logits));
  double sum = 0;
  for (float const logit : logits) sum += std::exp(static_cast<double>(logit) - most);
  std::vector<double> logs;
  for (float const logit : logits) logs.push_back(static_cast<double>(logit) - most - std::log(sum));
  return logs;
}

}  // namespace

Quality judge(std::span<Row const> rows, Matrix<float const> logits) {
  std::uint64_t labelled = 0;
  std::uint64_t right = 0;
  std::uint64_t right_ones = 0;
  std::uint64_t ones = 0;  // answered and labelled, together
  bool is_binary = logits.cols == 2;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (!rows[i].label) continue;
    std::int64_t const label = *rows[i].label;
    std::int64_t const given = answer(logits.row(static_cast<std::int64_t>(i)));
    ++labelled;
    if (label == given) ++right;
    if (label == 1 && given == 1) ++right_ones;
    ones += (label == 1 ? 1 : 0) + (given == 1 ? 1 : 0);
    is_binary = is_binary && label < 2;
  }
  Quality quality;
  if (labelled == 0) return quality;
  quality.accuracy = ratio(right, labelled);
  if (is_binary) quality.f1 = ratio(2 * right_ones, ones);
  return quality;
}

Likeness compare(Matrix<float const> exact, Matrix<float const> other) {
  std::uint64_t same = 0;
  double kl = 0;
  for (std::int64_t row = 0; row < exact.rows; ++row) {
    if (answer(exact.row(row)) == answer(other.row(row))) ++same;
    auto const p = log_softmax(exact.row(row));
    auto const q = log_softmax(other.row(row));
    for (std::size_t i = 0; i < p.size(); ++i) kl += std::exp(p[i]) * (p[i] - q[i]);
  }
  return {.agreement = ratio(same, static_cast<std::uint64_t>(exact.rows)), .kl = kl / static_cast<double>(exact.rows)};
}

}  // namespace sida::cli
