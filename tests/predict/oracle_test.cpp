#include "sida/predict/oracle.hpp"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/predict/wrong_predictor.hpp"

namespace sida {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TokenBatch batch_of(std::uint64_t number, std::size_t tokens) {
  TokenBatch batch;
  batch.number = number;
  batch.append(std::vector<std::int32_t>(tokens, 1));
  return batch;
}

RecordedRouting two_layers() {
  RoutingRecorder recorder;
  std::vector<std::uint16_t> const first = {3, 1, 1, kNoExpert}, last = {0, 2, 2, 0};
  recorder.observe(7, 0, {first.data(), 2, 2});
  recorder.observe(7, 2, {last.data(), 2, 2});
  return recorder.recorded();
}

TEST(OraclePredictor, PlaysBackWhatWasRecorded) {
  OraclePredictor oracle(two_layers());
  TokenBatch const batch = batch_of(7, 2);
  auto const plan = oracle.predict({batch, {}});
  ASSERT_TRUE(plan) << plan.message();
  EXPECT_EQ(plan->tokens, 2);
  EXPECT_EQ(plan->k, 2);
  ASSERT_EQ(plan->layers.size(), 3U);
  EXPECT_THAT(plan->layers[0].experts, ElementsAre(3, 1, 1, kNoExpert));
  EXPECT_THAT(plan->layers[0].expert_set, ElementsAre(ExpertId{0, 1}, ExpertId{0, 3}));
  EXPECT_THAT(plan->layers[1].expert_set, IsEmpty());
  EXPECT_THAT(plan->layers[2].expert_set, ElementsAre(ExpertId{2, 0}, ExpertId{2, 2}));
}

TEST(OraclePredictor, KnowsNothingOfOtherBatches) {
  OraclePredictor oracle(two_layers());
  TokenBatch const batch = batch_of(8, 2);
  auto const plan = oracle.predict({batch, {}});
  ASSERT_TRUE(plan);
  EXPECT_TRUE(plan->empty());
}

TEST(OraclePredictor, RefusesABatchOfAnotherSize) {
  OraclePredictor oracle(two_layers());
  TokenBatch const batch = batch_of(7, 3);
  auto const plan = oracle.predict({batch, {}});
  EXPECT_EQ(plan.code(), Errc::invalid_argument);
  EXPECT_THAT(plan.message(), HasSubstr("batch 7 has 3 tokens"));
}

TEST(RoutingRecorder, ReplacesALayerThatIsObservedAgainAndHonoursTheStride) {
  RoutingRecorder recorder;
  std::vector<std::uint16_t> const experts = {1, 99, 2, 99};
  recorder.observe(0, 0, {experts.data(), 4, 1});
  recorder.observe(0, 0, {experts.data(), 2, 1, 2});
  EXPECT_THAT(recorder.recorded().batches.at(0).at(0).experts, ElementsAre(1, 2));
}

TEST(WrongPredictor, NamesTheExpertsThatAreNotNeeded) {
  test::WrongPredictor wrong(two_layers(), {4, 4, 4});
  TokenBatch const batch = batch_of(7, 2);
  auto const plan = wrong.predict({batch, {}});
  ASSERT_TRUE(plan);
  EXPECT_THAT(plan->layers[0].expert_set, ElementsAre(ExpertId{0, 0}, ExpertId{0, 2}));
  EXPECT_EQ(plan->layers[1].expert_set.size(), 4U);
}

}  // namespace
}  // namespace sida
