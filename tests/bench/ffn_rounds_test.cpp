#include "bench/cpu/ffn_rounds.hpp"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace sida::bench {
namespace {

/// Notes which experts it is given.
class NotingArm final : public ExpertArm {
 public:
  explicit NotingArm(std::vector<std::size_t>& noted) : noted_(noted) {}
  Status run(std::size_t expert, float const*, float*) override {
    noted_.push_back(expert);
    return {};
  }

 private:
  std::vector<std::size_t>& noted_;
};

ArmSpec noting(std::string name, std::vector<std::size_t>& noted, std::int64_t only_rows = 0) {
  return {.name = std::move(name),
          .open = [&noted](ArmTask const&) -> Result<std::unique_ptr<ExpertArm>> {
            return std::unique_ptr<ExpertArm>(std::make_unique<NotingArm>(noted));
          },
          .only_rows = only_rows};
}

TEST(FfnRounds, AllArmsTakeTheirExpertsFromOneCycle) {
  auto const experts = ExpertSet::make(Dtype::bf16, 3);
  ASSERT_TRUE(experts);
  InlinePool pool;
  std::vector<std::size_t> noted;
  std::vector<ArmSpec> const specs = {noting("a", noted), noting("b", noted)};
  auto const times = run_rounds(specs, {*experts, 2, pool}, 2);
  ASSERT_TRUE(times) << times.message();
  ASSERT_FALSE(noted.empty());
  for (std::size_t i = 0; i < noted.size(); ++i) ASSERT_EQ(noted[i], i % 3);
  ASSERT_EQ(times->size(), 2);
  for (ArmTimes const& arm : *times) EXPECT_EQ(arm.seconds.size(), 2);
}

TEST(FfnRounds, LeavesOutArmsForAnotherNumberOfRows) {
  auto const experts = ExpertSet::make(Dtype::bf16, 1);
  ASSERT_TRUE(experts);
  InlinePool pool;
  std::vector<std::size_t> any, for_one_row;
  std::vector<ArmSpec> const specs = {noting("any", any), noting("for one row", for_one_row, 1)};
  auto const times = run_rounds(specs, {*experts, 2, pool}, 1);
  ASSERT_TRUE(times) << times.message();
  ASSERT_EQ(times->size(), 1);
  EXPECT_EQ(times->front().name, "any");
  EXPECT_TRUE(for_one_row.empty());
}

TEST(FfnRounds, SaysWhichArmDidNotOpen) {
  auto const experts = ExpertSet::make(Dtype::bf16, 1);
  ASSERT_TRUE(experts);
  InlinePool pool;
  ArmSpec const closed = {.name = "closed", .open = [](ArmTask const&) -> Result<std::unique_ptr<ExpertArm>> {
                            return Error(Errc::unsupported, "no");
                          }};
  auto const times = run_rounds(std::vector{closed}, {*experts, 2, pool}, 1);
  EXPECT_EQ(times.status().code(), Errc::unsupported);
  EXPECT_EQ(times.message(), "closed: no");
}

TEST(FfnRounds, ARatioIsTheMedianOfTheRounds) {
  ArmTimes const first = {"first", false, {2.0, 9.0, 8.0}}, second = {"second", true, {1.0, 9.0, 2.0}};
  EXPECT_EQ(median_ratio(first, second), 2.0);
}

TEST(FfnRounds, TheFastestOfSidaIsSidas) {
  std::vector<ArmTimes> const arms = {{"other", false, {1.0}}, {"slow", true, {3.0}}, {"fast", true, {2.0}}};
  EXPECT_EQ(fastest_of_sida(arms).name, "fast");
}

}  // namespace
}  // namespace sida::bench
