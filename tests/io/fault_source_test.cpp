#include "tests/support/fault_source.hpp"

#include <algorithm>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sida::testing {
namespace {

class FaultSourceTest : public ::testing::Test {
 protected:
  PatternSource inner_{{2, 3}, 5000};
  FaultSource source_{inner_};
  std::vector<std::byte> slot_ = std::vector<std::byte>(8192);
  std::span<std::byte> record_ = std::span(slot_).first(5000);
};

TEST_F(FaultSourceTest, PassesReadsOn) {
  ASSERT_TRUE(source_.read({1, 2}, slot_));
  EXPECT_TRUE(PatternSource::holds({1, 2}, record_));
  EXPECT_FALSE(PatternSource::holds({1, 1}, record_));
  EXPECT_EQ(source_.calls(), 1U);
}

TEST_F(FaultSourceTest, FailsTheCallItWasToldOnce) {
  source_.fault_call(1, Fault::fails);
  EXPECT_TRUE(source_.read({0, 0}, slot_));
  EXPECT_EQ(source_.read({0, 1}, slot_).code(), Errc::io);
  EXPECT_TRUE(source_.read({0, 1}, slot_));
  EXPECT_THAT(source_.log(), ::testing::ElementsAre(ExpertId{0, 0}, ExpertId{0, 1}, ExpertId{0, 1}));
}

TEST_F(FaultSourceTest, LeavesHalfARecordOrAFlippedByte) {
  source_.fault_expert({0, 1}, Fault::short_read, 1);
  EXPECT_EQ(source_.read({0, 1}, slot_).code(), Errc::io);
  EXPECT_TRUE(PatternSource::holds({0, 1}, record_.first(2500)));
  EXPECT_EQ(slot_[2500], std::byte{0});
  source_.fault_expert({0, 1}, Fault::wrong_bytes, 1);
  EXPECT_EQ(source_.read({0, 1}, slot_).code(), Errc::corrupt);
  EXPECT_FALSE(PatternSource::holds({0, 1}, record_));
  source_.fault_expert({0, 1}, Fault::silent, 1);
  EXPECT_TRUE(source_.read({0, 1}, slot_));
  EXPECT_FALSE(PatternSource::holds({0, 1}, record_));
  EXPECT_TRUE(source_.read({0, 1}, slot_));
  EXPECT_TRUE(PatternSource::holds({0, 1}, record_));
}

TEST_F(FaultSourceTest, HoldsReadsUntilReleased) {
  source_.hold();
  std::thread reader([&] { EXPECT_TRUE(source_.read({1, 0}, slot_)); });
  source_.wait_for_held(1);
  EXPECT_EQ(source_.calls(), 1U);
  source_.release();
  reader.join();
  EXPECT_TRUE(PatternSource::holds({1, 0}, record_));
}

}  // namespace
}  // namespace sida::testing
