#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/cli/golden.hpp"
#include "tests/cli/program.hpp"
#include "tests/io/temp_dir.hpp"

namespace sida::cli::test {
namespace {

nlohmann::json inspect(std::string const& model, std::vector<std::string> const& more = {}) {
  std::vector<std::string> arguments = {"inspect", model, "--json"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  Outcome const outcome = run(arguments);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  return nlohmann::json::parse(outcome.out);
}

TEST(Inspect, CountsExpertsAndBytes) {
  auto const report = inspect(golden("plain"));  // 2 MoE layers of 8 experts, d_model 20, d_ff 17, fp32
  EXPECT_EQ(report["format"], "safetensors");
  EXPECT_FALSE(report.contains("format_version"));
  EXPECT_EQ(report["dtype"], "fp32");
  EXPECT_EQ(report["moe_layers"], 2);
  EXPECT_EQ(report["experts_per_layer"], 8);
  EXPECT_EQ(report["experts"], 16);
  EXPECT_GE(report["record_bytes"], 2 * 20 * 17 * 4);
  EXPECT_EQ(report["slot_bytes"], 4096);
  EXPECT_EQ(report["expert_bytes_total"], 16 * 4096);
  std::uint64_t dense = 0;
  for (auto const& tensor : report["tensors"]) dense += tensor["bytes"].get<std::uint64_t>();
  EXPECT_EQ(report["dense_bytes"], dense);
  EXPECT_EQ(report["overhead_bytes"]["dense_weights"], dense);
}

TEST(Inspect, SaysHowManyExpertsABudgetHolds) {
  auto const report = inspect(golden("plain"));
  std::vector<std::pair<std::string, int>> const expected = {{"1 slot", 1}, {"5%", 1},  {"10%", 1},  {"20%", 3},
                                                             {"25%", 4},    {"50%", 8}, {"100%", 16}};
  ASSERT_EQ(report["budgets"].size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(report["budgets"][i]["budget"], expected[i].first);
    EXPECT_EQ(report["budgets"][i]["slots"], expected[i].second) << expected[i].first;
    EXPECT_EQ(report["budgets"][i]["bytes"], expected[i].second * 4096);
  }
}

TEST(Inspect, PrintsForPeople) {
  Outcome const outcome = run({"inspect", golden("plain"), "--tensors"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  for (auto const* const part : {"2 MoE layers of 8", "dense_weights", "20%", "3 experts", "shared.weight"}) {
    EXPECT_NE(outcome.out.find(part), std::string::npos) << part << " is not in\n" << outcome.out;
  }
}

TEST(Inspect, ShowsTheHashFunction) {
  std::string const model = SIDA_REFERENCE_MODEL;
  auto const report = inspect(model);
  EXPECT_EQ(report["predictor"]["path"], model + "/predictor.safetensors");
  EXPECT_EQ(report["predictor"]["hidden"], 128);
  EXPECT_GT(report["predictor"]["weight_bytes"], 128 * 128 * 8 * 2);
  EXPECT_TRUE(inspect(golden("plain"))["predictor"].is_null());
  EXPECT_NE(run({"inspect", model}).out.find("hidden size 128"), std::string::npos);
}

TEST(Inspect, SaysWhyAHashFunctionCannotBeUsed) {
  std::string const other = SIDA_TEST_DATA "/goldens/predictor/predictor.safetensors";
  testing::TempDir const folder;
  std::filesystem::copy(SIDA_REFERENCE_MODEL, folder / "model");
  std::filesystem::copy_file(other, folder / "model/predictor.safetensors",
                             std::filesystem::copy_options::overwrite_existing);
  std::string const problem = inspect(folder / "model")["predictor"]["problem"];
  EXPECT_NE(problem.find("this hash function is for"), std::string::npos) << problem;
  // One that is asked for has to be right.
  Outcome const outcome = run({"inspect", SIDA_REFERENCE_MODEL, "--predictor", other});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.err.find("this hash function is for"), std::string::npos) << outcome.err;
}

TEST(Inspect, SaysTheSameOfAContainer) {
  testing::TempDir const folder;
  ASSERT_EQ(run({"pack", golden("bfloat16"), "--out", folder / "m.sida"}).status, 0);
  auto before = inspect(golden("bfloat16"));
  auto after = inspect(folder / "m.sida", {"--verify"});
  EXPECT_EQ(after["format"], "sida");
  EXPECT_EQ(after["format_version"], 1);
  EXPECT_EQ(after["verified"], true);
  EXPECT_EQ(before["verified"], false);
  for (auto const* const key : {"model", "format", "format_version", "verified", "overhead_bytes"}) {
    before.erase(key);
    after.erase(key);
  }
  EXPECT_EQ(after, before);
}

TEST(Inspect, FindsAFlippedBitWhenItVerifies) {
  testing::TempDir const folder;
  ASSERT_EQ(run({"pack", golden("plain"), "--out", folder / "m.sida"}).status, 0);
  std::string bytes = testing::read_file(folder / "m.sida");
  // The last record begins one slot before the end.
  bytes[bytes.size() - 4096] = static_cast<char>(bytes[bytes.size() - 4096] ^ 1);
  testing::write_file(folder / "m.sida", bytes);
  EXPECT_EQ(run({"inspect", folder / "m.sida"}).status, 0) << "headers alone are whole";
  Outcome const outcome = run({"inspect", folder / "m.sida", "--verify"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.out, "");
  EXPECT_NE(outcome.err.find("layer 1 expert 7"), std::string::npos) << outcome.err;
}

TEST(Inspect, VerifiesAFolderByReadingIt) {
  EXPECT_EQ(inspect(golden("sharded"), {"--verify"})["verified"], true);
  Outcome const outcome = run({"inspect", golden("sharded"), "--verify"});
  EXPECT_NE(outcome.out.find("Everything could be read."), std::string::npos) << outcome.out;
}

TEST(Inspect, SaysWhatIsWrong) {
  testing::TempDir const folder;
  testing::write_file(folder / "short.sida", "sida");
  std::vector<std::pair<std::vector<std::string>, int>> const cases = {
      {{"inspect", folder / "none"}, 1},
      {{"inspect", folder / "short.sida"}, 1},
      {{"inspect", folder.path()}, 1},
      {{"inspect"}, 2},
      {{"inspect", golden("plain"), "--unknown"}, 2},
      {{"inspect", golden("plain"), "more"}, 2},
  };
  for (auto const& [arguments, status] : cases) {
    Outcome const outcome = run(arguments);
    EXPECT_EQ(outcome.status, status) << arguments.back() << ": " << outcome.err;
    EXPECT_EQ(outcome.out, "");
    EXPECT_TRUE(outcome.err.starts_with("sida: error: ")) << outcome.err;
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
  }
}

}  // namespace
}  // namespace sida::cli::test
