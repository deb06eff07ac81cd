// What every predictor owes the runtime, whatever it predicts.
#include <algorithm>
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "sida/predict/any_predictor.hpp"
#include "sida/predict/oracle.hpp"
#include "sida/predict/popularity.hpp"
#include "sida/predict/predictor.hpp"
#include "tests/predict/wrong_predictor.hpp"

namespace sida {
namespace {

constexpr std::uint32_t kLayers = 3;
constexpr std::uint32_t kExperts = 11;
constexpr std::int64_t kTokens = 6;
constexpr std::int64_t kRanks = 2;
constexpr std::uint64_t kBatches = 20;

/// The routing of one layer of one batch, the same on every call. [kTokens, kRanks]
std::vector<std::uint16_t> routing(std::uint64_t batch, std::uint32_t layer) {
  std::mt19937 random(static_cast<unsigned>(batch * kLayers + layer));
  std::vector<std::uint16_t> experts(kTokens * kRanks);
  for (auto& expert : experts) expert = static_cast<std::uint16_t>(random() % (kExperts + 1));
  std::replace(experts.begin(), experts.end(), std::uint16_t{kExperts}, kNoExpert);
  return experts;
}

template <class P>
void observe_batch(P& predictor, std::uint64_t batch) {
  for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
    std::vector<std::uint16_t> const experts = routing(batch, layer);
    predictor.observe(batch, layer, {experts.data(), kTokens, kRanks});
  }
}

RecordedRouting recorded_run() {
  RoutingRecorder recorder;
  for (std::uint64_t batch = 0; batch < kBatches; ++batch) observe_batch(recorder, batch);
  return recorder.recorded();
}

template <class P>
std::unique_ptr<P> make() {
  return std::make_unique<P>();
}
template <>
std::unique_ptr<OraclePredictor> make<OraclePredictor>() {
  return std::make_unique<OraclePredictor>(recorded_run());
}
template <>
std::unique_ptr<test::WrongPredictor> make<test::WrongPredictor>() {
  return std::make_unique<test::WrongPredictor>(recorded_run(), std::vector<std::uint32_t>(kLayers, kExperts));
}
template <>
std::unique_ptr<AnyPredictor> make<AnyPredictor>() {
  return std::make_unique<AnyPredictor>(AnyPredictor::make<PopularityPredictor>());
}

template <class P>
class AnyKindOfPredictor : public testing::Test {
 protected:
  ActivationPlan predict(std::uint64_t number, std::int64_t tokens = kTokens) {
    TokenBatch batch;
    batch.number = number;
    if (tokens > 0) batch.append(std::vector<std::int32_t>(static_cast<std::size_t>(tokens), 3));
    auto plan = predictor_->predict({batch, {}});
    EXPECT_TRUE(plan) << plan.message();
    return plan ? *std::move(plan) : ActivationPlan{};
  }

  static void expect_well_formed(ActivationPlan const& plan) {
    if (plan.empty()) return;
    ASSERT_LE(plan.layers.size(), kLayers);
    for (std::uint32_t l = 0; l < plan.layers.size(); ++l) {
      auto const& layer = plan.layers[l];
      auto const& set = layer.expert_set;
      for (ExpertId const id : set) {
        EXPECT_EQ(id.layer, l);
        EXPECT_LT(id.expert, kExperts);
      }
      EXPECT_EQ(std::adjacent_find(set.begin(), set.end(), std::greater_equal<>()), set.end())
          << "not ascending and distinct";
      if (layer.experts.empty()) continue;
      ASSERT_EQ(std::ssize(layer.experts), plan.tokens * plan.k);
      EXPECT_EQ(expert_set(l, {layer.experts.data(), plan.tokens, plan.k}), set);
    }
  }

  std::unique_ptr<P> predictor_ = make<P>();
};

using Predictors = testing::Types<NoPredictor, RoutingRecorder, OraclePredictor, PopularityPredictor,
                                  test::WrongPredictor, AnyPredictor>;
TYPED_TEST_SUITE(AnyKindOfPredictor, Predictors);

TYPED_TEST(AnyKindOfPredictor, MakesWellFormedPlansBeforeAndAfterObserving) {
  for (std::uint64_t batch = 0; batch < kBatches; ++batch) {
    this->expect_well_formed(this->predict(batch));
    observe_batch(*this->predictor_, batch);
  }
}

TYPED_TEST(AnyKindOfPredictor, TakesABatchWithoutTokens) {
  observe_batch(*this->predictor_, 0);
  this->predictor_->observe(1, 0, {});
  this->expect_well_formed(this->predict(kBatches, 0));
}

TYPED_TEST(AnyKindOfPredictor, PredictsAndObservesOnTwoThreads) {
  std::thread inference([&] {
    for (std::uint64_t batch = 0; batch < kBatches; ++batch) observe_batch(*this->predictor_, batch);
  });
  for (std::uint64_t batch = 0; batch < kBatches; ++batch) this->expect_well_formed(this->predict(batch));
  inference.join();
}

TEST(AnyPredictor, PredictsNothingByDefaultAndMoves) {
  AnyPredictor any;
  TokenBatch batch;
  batch.append(std::vector<std::int32_t>(kTokens, 1));
  EXPECT_TRUE(any.predict({batch, {}})->empty());
  any = OraclePredictor(recorded_run());
  AnyPredictor moved = std::move(any);
  EXPECT_FALSE(moved.predict({batch, {}})->empty());
}

}  // namespace
}  // namespace sida
