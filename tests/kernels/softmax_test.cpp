#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "sida/kernels/cpu.hpp"

namespace sida {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

class SoftmaxTest : public testing::TestWithParam<CpuIsa> {
 protected:
  /// Of `scores` with whatever after them, up to their room; what is after that stays as it is.
  std::vector<float> run(std::vector<float> scores, std::vector<float> bias, float after = kNan) const {
    std::size_t const count = scores.size();
    std::size_t const room = (count + SoftmaxArgs::kRoom - 1) / SoftmaxArgs::kRoom * SoftmaxArgs::kRoom;
    scores.resize(room, after);
    bias.resize(room, after);
    scores.push_back(-7.0F);
    softmax(GetParam(), {.bias = bias.data(), .row = scores.data(), .count = static_cast<std::int64_t>(count)});
    EXPECT_EQ(scores.back(), -7.0F) << "wrote past the row's room";
    scores.resize(count);
    return scores;
  }
};

TEST_P(SoftmaxTest, IsTheTextbookFunction) {
  std::mt19937 random(5);
  for (std::size_t const count : {1, 2, 7, 8, 9, 16, 31, 128, 513}) {
    for (float const scale : {0.01F, 1.0F, 30.0F, 1000.0F}) {
      std::normal_distribution<float> normal(0.0F, scale);
      std::vector<float> scores(count), bias(count);
      for (float& score : scores) score = normal(random);
      for (float& value : bias) value = normal(random);
      std::vector<float> const weights = run(scores, bias);
      std::vector<double> expected(count);
      for (std::size_t j = 0; j < count; ++j) expected[j] = static_cast<double>(scores[j] + bias[j]);
      double const highest = *std::ranges::max_element(expected);
      double sum = 0;
      for (double const score : expected) sum += std::exp(score - highest);
      for (std::size_t j = 0; j < count; ++j) {
        double const below = highest - expected[j];
        double const weight = below > 70.0 ? 0.0 : std::exp(-below) / sum;
        ASSERT_NEAR(weights[j], weight, 1e-6 * (1 + below) * weight) << count << " " << scale;
      }
    }
  }
}

TEST_P(SoftmaxTest, IsTheSameWhateverStandsAfterTheRow) {
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  for (std::size_t count = 1; count < 40; ++count) {
    std::vector<float> scores(count), bias(count);
    for (float& score : scores) score = normal(random);
    for (float& value : bias) value = normal(random);
    std::vector<float> const expected = run(scores, bias, 0.0F);
    for (float const after : {kNan, kInf, -kInf, 1e30F}) EXPECT_EQ(run(scores, bias, after), expected) << count;
  }
}

TEST_P(SoftmaxTest, KeepsWhatIsNotANumber) {
  for (float const odd : {kNan, kInf}) {
    std::vector<float> scores(19, 0.5F);
    scores[17] = odd;
    for (float const weight : run(scores, std::vector<float>(19, 0.25F))) EXPECT_TRUE(std::isnan(weight));
  }
}

TEST_P(SoftmaxTest, GivesNothingToWhatIsFarBelow) {
  for (float const far : {-kInf, -1e9F, -200.0F, -87.0F, -68.5F}) {
    std::vector<float> scores(12, far);
    scores[3] = scores[10] = 2.0F;
    std::vector<float> const weights = run(scores, std::vector<float>(12, 1.0F));
    for (std::size_t j = 0; j < 12; ++j) EXPECT_EQ(weights[j], j == 3 || j == 10 ? 0.5F : 0.0F) << j << " of " << far;
  }
}

TEST_P(SoftmaxTest, GivesNoDenormalWeights) {
  std::vector<float> scores(2000);
  for (std::size_t j = 0; j < scores.size(); ++j) scores[j] = -0.05F * static_cast<float>(j);
  for (float const weight : run(scores, std::vector<float>(2000))) {
    EXPECT_TRUE(weight == 0.0F || std::isnormal(weight)) << weight;
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, SoftmaxTest, testing::ValuesIn(runnable_cpu_isas().begin(), runnable_cpu_isas().end()),
                         [](auto const& isa) { return std::string(to_string(isa.param)); });

}  // namespace
}  // namespace sida
