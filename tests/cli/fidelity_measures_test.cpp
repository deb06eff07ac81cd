#include "cli/fidelity_measures.hpp"

#include <cmath>
#include <optional>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace sida::cli {
namespace {

std::vector<Row> rows_of(std::vector<std::optional<std::int32_t>> const& labels) {
  std::vector<Row> rows(labels.size());
  for (std::size_t i = 0; i < labels.size(); ++i) rows[i].label = labels[i];
  return rows;
}

Matrix<float const> view(std::vector<float> const& values, std::int64_t labels) {
  return {values.data(), static_cast<std::int64_t>(values.size()) / labels, labels};
}

TEST(Judge, CountsAccuracyAndF1OverLabelledRows) {
  // answers: 1, 0, 1, 1, 0
  std::vector<float> const logits = {0, 1, 1, 0, -2, 3, 0, 1, 5, 1};
  Quality const quality = judge(rows_of({1, 1, 0, 1, std::nullopt}), view(logits, 2));
  EXPECT_DOUBLE_EQ(*quality.accuracy, 2.0 / 4);
  // label 1 three times, answered three times, both twice
  EXPECT_DOUBLE_EQ(*quality.f1, 2.0 * 2 / (3 + 3));
}

TEST(Judge, HasNoF1OfThreeLabelsAndNothingWithoutLabels) {
  std::vector<float> const three = {0, 1, 2, 2, 1, 0};
  EXPECT_TRUE(judge(rows_of({2, 0}), view(three, 3)).accuracy);
  EXPECT_FALSE(judge(rows_of({2, 0}), view(three, 3)).f1);
  std::vector<float> const two = {0, 1, 1, 0};
  EXPECT_FALSE(judge(rows_of({2, 0}), view(two, 2)).f1) << "a label that the model can't answer";
  EXPECT_FALSE(judge(rows_of({std::nullopt, std::nullopt}), view(two, 2)).accuracy);
  EXPECT_EQ(*judge(rows_of({0, 0}), view(std::vector<float>{1, 0, 1, 0}, 2)).f1, 0.0) << "never answered right";
}

TEST(Compare, IsZeroForTheSameAnswersAndBlindToAShift) {
  std::vector<float> const logits = {0.5F, -1.25F, 3, 2};
  std::vector<float> shifted = logits;
  for (float& value : shifted) value += 64;
  EXPECT_DOUBLE_EQ(compare(view(logits, 2), view(logits, 2)).kl, 0);
  EXPECT_NEAR(compare(view(logits, 2), view(shifted, 2)).kl, 0, 1e-12);
  EXPECT_DOUBLE_EQ(compare(view(logits, 2), view(shifted, 2)).agreement, 1);
}

TEST(Compare, IsTheDefinitionOnRandomRows) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> p(300);
  std::vector<float> q(300);
  for (float& value : p) value = normal(random);
  for (float& value : q) value = normal(random);
  double sum = 0;
  int same = 0;
  for (std::size_t row = 0; row < 100; ++row) {
    double zp = 0;
    double zq = 0;
    for (std::size_t i = 0; i < 3; ++i) zp += std::exp(double{p[3 * row + i]});
    for (std::size_t i = 0; i < 3; ++i) zq += std::exp(double{q[3 * row + i]});
    std::size_t best_p = 0;
    std::size_t best_q = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      double const pi = std::exp(double{p[3 * row + i]}) / zp;
      double const qi = std::exp(double{q[3 * row + i]}) / zq;
      sum += pi * std::log(pi / qi);
      if (p[3 * row + i] > p[3 * row + best_p]) best_p = i;
      if (q[3 * row + i] > q[3 * row + best_q]) best_q = i;
    }
    if (best_p == best_q) ++same;
  }
  Likeness const likeness = compare(view(p, 3), view(q, 3));
  EXPECT_NEAR(likeness.kl, sum / 100, 1e-12);
  EXPECT_DOUBLE_EQ(likeness.agreement, same / 100.0);
}

TEST(Compare, BearsLargeLogits) {
  std::vector<float> const p = {1e4F, -1e4F};
  std::vector<float> const q = {-1e4F, 1e4F};
  EXPECT_NEAR(compare(view(p, 2), view(q, 2)).kl, 2e4, 1e-6);
}

}  // namespace
}  // namespace sida::cli
