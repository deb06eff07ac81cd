#include "sida/policy/horizon.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sida {
namespace {

using ::testing::ElementsAre;
using ::testing::Optional;

std::vector<std::vector<ExpertIndex>> experts_of(Horizon const& horizon) {
  std::vector<std::vector<ExpertIndex>> sets;
  for (auto const& event : horizon.events()) sets.push_back(event.experts);
  return sets;
}

TEST(Horizon, KnowsTheNextUseOfEachExpert) {
  Horizon horizon(8);
  horizon.append({{1, 2}, {2, 3}}, 4);
  horizon.append({{1}}, 4);
  EXPECT_LT(horizon.next_use(1), horizon.next_use(3));
  EXPECT_EQ(horizon.next_use(1), horizon.next_use(2));
  EXPECT_EQ(horizon.next_use(7), Horizon::kNever);
}

TEST(Horizon, ForgetsAnEventAndThoseBeforeItWhenItArrives) {
  Horizon horizon(8);
  PlanId const plan = horizon.append({{1}, {2}, {3}}, 4);
  EXPECT_THAT(horizon.arrive(plan, 1), Optional(ElementsAre(2)));
  EXPECT_EQ(horizon.next_use(1), Horizon::kNever);
  EXPECT_EQ(horizon.next_use(2), Horizon::kNever);
  EXPECT_NE(horizon.next_use(3), Horizon::kNever);
  EXPECT_EQ(horizon.arrive(plan, 1), std::nullopt);
}

TEST(Horizon, LeavesOtherPlansAloneWhenPlansInterleave) {
  Horizon horizon(8);
  PlanId const first = horizon.append({{1}, {2}}, 4);
  PlanId const second = horizon.append({{1}, {3}}, 4);
  EXPECT_THAT(horizon.arrive(second, 0), Optional(ElementsAre(1)));
  EXPECT_THAT(experts_of(horizon), ElementsAre(ElementsAre(1), ElementsAre(2), ElementsAre(3)));
  EXPECT_TRUE(horizon.drop(first));
  EXPECT_FALSE(horizon.drop(first));
  EXPECT_THAT(experts_of(horizon), ElementsAre(ElementsAre(3)));
}

TEST(Horizon, CutsEventsLargerThanTheSlotsAndReportsThemWhole) {
  Horizon horizon(8);
  PlanId const plan = horizon.append({{0, 1, 2, 3, 4}, {5}}, 2);
  EXPECT_THAT(experts_of(horizon), ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3), ElementsAre(4), ElementsAre(5)));
  EXPECT_THAT(horizon.arrive(plan, 0), Optional(ElementsAre(0, 1, 2, 3, 4)));
  EXPECT_THAT(experts_of(horizon), ElementsAre(ElementsAre(5)));
}

TEST(Horizon, PutsPrependedEventsBeforeAllOthersInOrder) {
  Horizon horizon(8);
  horizon.append({{7}}, 4);
  std::vector<ExpertIndex> const one{1};
  std::vector<ExpertIndex> const two{2};
  PlanId const waves = horizon.prepend({one, two});
  EXPECT_THAT(experts_of(horizon), ElementsAre(ElementsAre(1), ElementsAre(2), ElementsAre(7)));
  EXPECT_LT(horizon.next_use(1), horizon.next_use(2));
  EXPECT_LT(horizon.next_use(2), horizon.next_use(7));
  EXPECT_THAT(horizon.arrive(waves, 0), Optional(ElementsAre(1)));
}

TEST(Horizon, CountsAnEmptyEventAsPlanned) {
  Horizon horizon(8);
  PlanId const plan = horizon.append({{}, {1}}, 4);
  EXPECT_THAT(horizon.arrive(plan, 0), Optional(ElementsAre()));
  EXPECT_EQ(horizon.arrive(PlanId::none, 0), std::nullopt);
}

}  // namespace
}  // namespace sida
