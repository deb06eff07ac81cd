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

}  // namespace
}  // namespace sida
