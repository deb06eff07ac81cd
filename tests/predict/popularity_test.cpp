#include "sida/predict/popularity.hpp"

#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sida {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class PopularityPredictorTest : public testing::Test {
 protected:
  void observe(std::uint32_t layer, std::vector<std::uint16_t> const& experts) {
    predictor_.observe(0, layer, {experts.data(), static_cast<std::int64_t>(experts.size()), 1});
  }
  ActivationPlan plan() {
    TokenBatch batch;
    batch.append(std::vector<std::int32_t>{1, 2});
    return *predictor_.predict({batch, {}});
  }
  PopularityPredictor predictor_;
};

TEST_F(PopularityPredictorTest, KnowsNothingAtFirst) { EXPECT_TRUE(plan().empty()); }

TEST_F(PopularityPredictorTest, NamesTheMostUsedAsManyAsAnEventHadRoundedUp) {
  observe(0, {5, 5, 5, 1});        // 2 distinct
  observe(0, {5, 2, 1, 1, 1, 7});  // 4 distinct
  observe(0, {1, 0});              // 2 distinct: 8 / 3 rounded up is 3
  EXPECT_THAT(plan().layers.at(0).expert_set, ElementsAre(ExpertId{0, 0}, ExpertId{0, 1}, ExpertId{0, 5}));
}

TEST_F(PopularityPredictorTest, KeepsLayersApart) {
  observe(2, {9});
  observe(0, {4});
  auto const layers = plan().layers;
  ASSERT_EQ(layers.size(), 3U);
  EXPECT_THAT(layers[0].expert_set, ElementsAre(ExpertId{0, 4}));
  EXPECT_THAT(layers[1].expert_set, IsEmpty());
  EXPECT_THAT(layers[2].expert_set, ElementsAre(ExpertId{2, 9}));
}

TEST_F(PopularityPredictorTest, IgnoresTokensWithoutAnExpert) {
  observe(0, {kNoExpert, kNoExpert});
  EXPECT_TRUE(plan().empty());
  observe(0, {kNoExpert, 3});
  EXPECT_THAT(plan().layers.at(0).expert_set, ElementsAre(ExpertId{0, 3}));
}

}  // namespace
}  // namespace sida
