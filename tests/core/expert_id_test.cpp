#include "sida/core/expert_id.hpp"

#include <functional>

#include <gtest/gtest.h>

namespace {

TEST(ExpertId, OrdersByLayerThenExpert) {
  EXPECT_LT((sida::ExpertId{1, 9}), (sida::ExpertId{2, 0}));
  EXPECT_LT((sida::ExpertId{2, 0}), (sida::ExpertId{2, 1}));
  EXPECT_EQ(to_string(sida::ExpertId{.layer = 3, .expert = 17}), "layer 3 expert 17");
  EXPECT_NE(std::hash<sida::ExpertId>()({0, 1}), std::hash<sida::ExpertId>()({1, 0}));
}

}  // namespace
