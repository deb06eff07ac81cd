#include "sida/route/activation_plan.hpp"

#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sida {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(ExpertSet, IsAscendingDistinctAndSkipsAbsentTokens) {
  std::vector<std::uint16_t> experts = {9, 3, kNoExpert, 9, 0, 65534};
  EXPECT_THAT(expert_set(4, {experts.data(), 3, 2}),
              ElementsAre(ExpertId{4, 0}, ExpertId{4, 3}, ExpertId{4, 9}, ExpertId{4, 65534}));
}

TEST(ExpertSet, HonoursTheStride) {
  std::vector<std::uint16_t> experts = {5, 77, 6, 78};
  EXPECT_THAT(expert_set(0, {experts.data(), 2, 1, 2}), ElementsAre(ExpertId{0, 5}, ExpertId{0, 6}));
}

TEST(ExpertSet, IsEmptyWithoutTokensOrExperts) {
  std::uint16_t none = kNoExpert;
  EXPECT_THAT(expert_set(0, {}), IsEmpty());
  EXPECT_THAT(expert_set(0, {&none, 1, 1}), IsEmpty());
}

ActivationPlan two_tokens() {
  ActivationPlan plan;
  plan.tokens = 2;
  plan.k = 2;
  plan.layers.resize(1);
  plan.layers[0].experts = {4, 1, kNoExpert, 3};
  plan.layers[0].alphas = {to_fp16(0.75F), to_fp16(0.25F), to_fp16(0.5F), to_fp16(1.0F)};
  return plan;
}

TEST(RouteByPlan, TakesIdsAndWeights) {
  HostRouting routing;
  routing.resize(2, 2);
  ASSERT_TRUE(route_by_plan(two_tokens(), 0, routing.view()));
  auto const view = routing.view();
  EXPECT_EQ(view.experts(0, 0), 4);
  EXPECT_EQ(view.experts(0, 1), 1);
  EXPECT_EQ(view.experts(1, 0), kNoExpert);
  EXPECT_EQ(view.experts(1, 1), 3);
  EXPECT_EQ(view.weights(0, 0), 0.75F);
  EXPECT_EQ(view.weights(0, 1), 0.25F);
  EXPECT_EQ(view.weights(1, 0), 0.0F) << "an absent expert has no weight, or the token would pass through";
  EXPECT_EQ(view.weights(1, 1), 1.0F);
}

TEST(RouteByPlan, RefusesAPlanThatDoesNotFit) {
  HostRouting routing;
  routing.resize(2, 1);
  EXPECT_EQ(route_by_plan(two_tokens(), 0, routing.view()).error().code(), Errc::invalid_argument) << "another k";
  routing.resize(3, 2);
  EXPECT_EQ(route_by_plan(two_tokens(), 0, routing.view()).error().code(), Errc::invalid_argument) << "other tokens";
  routing.resize(2, 2);
  EXPECT_EQ(route_by_plan(two_tokens(), 1, routing.view()).error().code(), Errc::invalid_argument) << "no such layer";
  ActivationPlan plan = two_tokens();
  plan.layers[0].alphas.clear();
  EXPECT_EQ(route_by_plan(plan, 0, routing.view()).error().code(), Errc::invalid_argument) << "no weights";
  plan = two_tokens();
  plan.layers[0].experts.clear();
  EXPECT_EQ(route_by_plan(plan, 0, routing.view()).error().code(), Errc::invalid_argument) << "sets alone";
}

}  // namespace
}  // namespace sida
