#include "bench/arms_report.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace sida::bench::test {
namespace {

/// Two rounds in which arm i takes i + 1 seconds, and then twice as long; half of it is waiting. All but the first
/// have to load 10 slots of 1 MB.
Experiment experiment() {
  Experiment made;
  made.slow = "1";
  made.disk = {.bytes_per_s = 1e6, .latency = {}};
  made.slot_bytes = 1000000;
  for (std::size_t i = 0; i < arm_specs().size(); ++i) {
    made.slots.push_back(i == all_resident ? 96 : 24);
    made.runs.emplace_back();
    for (double const times : {1.0, 2.0}) {
      ArmRun run;
      run.wall_s = times * static_cast<double>(i + 1);
      run.store.stall_ns = static_cast<std::uint64_t>(run.wall_s * 0.5e9);
      run.min_loads = i == all_resident ? 0 : 10;
      run.logits_sha256 = "abcdef0123456789";
      made.runs.back().push_back(run);
    }
  }
  return made;
}

TEST(Spread, OfAnEvenNumberIsTheMeanOfTheMiddleTwo) {
  auto const spread = Spread::of({4, 1, 3, 2});
  EXPECT_EQ(spread.median, 2.5);
  EXPECT_EQ(spread.least, 1);
  EXPECT_EQ(spread.most, 4);
  EXPECT_EQ(Spread::of({5, 1, 2}).median, 2);
}

TEST(ArmsReport, ComparesArmsWithinTheirRounds) {
  auto const made = experiment();
  EXPECT_EQ(wall_ratio(made, by_oracle, lru).median, 7.0 / 4);
  EXPECT_EQ(wall_ratio(made, by_oracle, lru).most, 7.0 / 4);
  auto const arms = summarise(made);
  EXPECT_EQ(arms[fifo].to_all_resident.median, 3);
  EXPECT_EQ(arms[lru].wall_s.median, 6);
  EXPECT_EQ(arms[lru].stall_s, 3);
  EXPECT_EQ(arms[lru].compute_s, 3);
  EXPECT_EQ(arms[all_resident].bound_s, 1.5) << "its own wall time";
  EXPECT_EQ(arms[lru].bound_s, 10) << "ten seconds of transfers";
}

TEST(ArmsReport, SeesOtherLogits) {
  auto made = experiment();
  EXPECT_TRUE(same_answers(made));
  EXPECT_THAT(make_table(made), ::testing::HasSubstr("logits: the same in all runs, sha256 abcdef0123456789"));
  made.runs[by_hash][1].logits_sha256 = "f";
  EXPECT_FALSE(same_answers(made));
  EXPECT_THAT(make_table(made), ::testing::HasSubstr("DIFFERENT"));
  EXPECT_EQ(nlohmann::json::parse(make_json(made))["same_logits"], false);
}

TEST(ArmsReport, CutsTheBarThatDwarfsTheOthers) {
  auto made = experiment();
  EXPECT_NEAR(make_chart(made).axis_end, 1.05 * 12, 1e-9);
  for (auto& run : made.runs[one_slot]) run.wall_s *= 100;
  EXPECT_NEAR(make_chart(made).axis_end, 1.05 * 12, 1e-9);
}

}  // namespace
}  // namespace sida::bench::test
