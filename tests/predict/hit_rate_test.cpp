#include "sida/predict/hit_rate.hpp"

#include <vector>

#include <gtest/gtest.h>

namespace sida {
namespace {

ActivationPlan plan_of(std::int64_t k, std::vector<std::vector<std::uint16_t>> layers) {
  ActivationPlan plan;
  plan.k = k;
  plan.tokens = std::ssize(layers.front()) / k;
  for (auto& experts : layers) plan.layers.push_back({.experts = std::move(experts), .alphas = {}, .expert_set = {}});
  return plan;
}

void observe(HitRateMeter& meter, std::uint64_t batch, std::uint32_t layer, std::vector<std::uint16_t> experts,
             std::int64_t k = 1) {
  meter.observed(batch, layer, {experts.data(), std::ssize(experts) / k, k});
}

TEST(HitRateMeter, CountsFirstTwoAndThreeGuesses) {
  HitRateMeter meter;
  meter.planned(7, plan_of(4, {{0, 1, 2, 3, 0, 1, 2, 3}, {5, 6, 7, 8, 5, 6, 7, 8}}));
  observe(meter, 7, 0, {0, 2});  // first; third
  observe(meter, 7, 1, {8, 9});  // fourth; not at all
  auto const rates = meter.rates();
  ASSERT_EQ(rates.layers.size(), 2U);
  EXPECT_EQ(rates.layers[0].tokens, 2U);
  EXPECT_EQ(rates.layers[0].top1, 1U);
  EXPECT_EQ(rates.layers[0].top2, 1U);
  EXPECT_EQ(rates.layers[0].top3, 2U);
  EXPECT_EQ(rates.layers[1].top1, 0U);
  EXPECT_EQ(rates.layers[1].top3, 0U);
  EXPECT_DOUBLE_EQ(*rates.mean_top1(), 0.25);
  EXPECT_DOUBLE_EQ(*rates.mean_top2(), 0.25);
  EXPECT_DOUBLE_EQ(*rates.mean_top3(), 0.5);
}

TEST(HitRateMeter, MeansOverLayersNotOverTokens) {
  HitRateMeter meter;
  meter.planned(0, plan_of(1, {{0, 0, 0}, {0, 0, 0}}));
  observe(meter, 0, 0, {0, 0, 0});
  observe(meter, 0, 1, {1, kNoExpert, kNoExpert});  // one token is counted
  EXPECT_EQ(meter.rates().layers[1].tokens, 1U);
  EXPECT_DOUBLE_EQ(*meter.rates().mean_top1(), 0.5);
}

TEST(HitRateMeter, JudgesABatchOnceAndTheFirstColumn) {
  HitRateMeter meter;
  meter.planned(3, plan_of(1, {{4}}));
  observe(meter, 2, 0, {4});  // never planned
  EXPECT_FALSE(meter.rates().mean_top1());
  observe(meter, 3, 0, {4, 9}, 2);
  observe(meter, 3, 0, {4, 9}, 2);  // forgotten by now
  EXPECT_EQ(meter.rates().layers[0].tokens, 1U);
  EXPECT_EQ(meter.rates().layers[0].top1, 1U);
}

TEST(HitRateMeter, DoesNotJudgePlansOfSetsOrOfOtherTokens) {
  HitRateMeter meter;
  ActivationPlan sets;
  sets.tokens = 1;
  sets.layers.push_back({.experts = {}, .alphas = {}, .expert_set = {{0, 1}}});
  meter.planned(0, sets);
  observe(meter, 0, 0, {1});
  meter.planned(1, plan_of(1, {{1, 1}}));
  observe(meter, 1, 0, {1});
  EXPECT_FALSE(meter.rates().mean_top1());
}

TEST(JudgedPredictor, PassesPlansAndObservationsOn) {
  struct Fixed {
    int* observed;
    Result<ActivationPlan> predict(PredictorInput const& input) {
      if (input.batch.number == 1) return Error(Errc::io, "no");
      return plan_of(1, {{2, 2}});
    }
    void observe(std::uint64_t, std::uint32_t, Matrix<std::uint16_t const>) { ++*observed; }
  };
  int observed = 0;
  HitRateMeter meter;
  JudgedPredictor<Fixed> judged(Fixed{&observed}, meter);
  static_assert(Predictor<JudgedPredictor<Fixed>>);
  TokenBatch batch;
  ASSERT_TRUE(judged.predict({batch, {}}));
  std::vector<std::uint16_t> const chosen{2, 0};
  judged.observe(0, 0, {chosen.data(), 2, 1});
  EXPECT_EQ(observed, 1);
  EXPECT_DOUBLE_EQ(*meter.rates().mean_top1(), 0.5);
  batch.number = 1;
  EXPECT_FALSE(judged.predict({batch, {}}));
}

}  // namespace
}  // namespace sida
