#include "tests/cli/program.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/cli/golden.hpp"

/// The program with --device cuda, on the stand-in for CUDA only.
namespace sida::cli::test {
namespace {

using Json = nlohmann::json;

class CudaProgram : public ::testing::Test {
 protected:
  CudaProgram() { testing::write_file(data_, golden_.jsonl()); }

  std::vector<std::string> classify(std::vector<std::string> const& more) const {
    std::vector<std::string> arguments = {"classify", "--model", golden_.folder, "--data",
                                          data_,      "--quiet", "--device",     "cuda"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  Json account(std::vector<std::string> more) {
    std::string const json = folder_ / "run.json";
    more.insert(more.end(), {"--json", json});
    Outcome const outcome = run(classify(more));
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_EQ(outcome.out + outcome.err, "");
    return outcome.status == 0 ? Json::parse(testing::read_file(json)) : Json::object();
  }

  Golden golden_{"plain"};
  testing::TempDir folder_;
  std::string data_ = folder_ / "data.jsonl";
};

TEST_F(CudaProgram, AnswersAsTransformersDoes) {
  std::string const out = folder_ / "preds.tsv";
  account({"--device-budget", "25%", "--out", out, "--batch", "3"});
  std::istringstream lines(testing::read_file(out));
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(line, "index\tlabel\tscore_0\tscore_1\tscore_2");
  std::size_t const labels = golden_.logits.size() / golden_.lengths.size();
  float const largest = std::abs(*std::ranges::max_element(golden_.logits, {}, [](float x) { return std::abs(x); }));
  std::size_t rows = 0;
  for (; std::getline(lines, line); ++rows) {
    std::istringstream fields(line);
    std::size_t index = 0, label = 0;
    fields >> index >> label;
    for (std::size_t i = 0; i < labels; ++i) {
      float score = 0;
      fields >> score;
      EXPECT_NEAR(score, golden_.logits[rows * labels + i], 1e-5F * largest) << line;
    }
  }
  EXPECT_EQ(rows, golden_.lengths.size());
}

TEST_F(CudaProgram, AnswersTheSameBytesWhateverTheBudgetsPoliciesAndPlans) {
  Json const all = account({"--device-budget", "100%"});
  EXPECT_EQ(all["slots"], 16);  // 2 layers of 8 experts
  std::vector<std::vector<std::string>> const runs = {
      {"--device-budget", "25%", "--budget", "50%"},
      {"--device-budget", "7%", "--budget", "7%", "--policy", "fifo"},
      {"--device-budget", "25%", "--prefetch", "oracle", "--policy", "next-use"},
      {"--device-budget", "40%", "--prefetch", "wrong", "--lookahead", "2"},
      {"--device-budget", "25%", "--preload", "--warm-up"}};
  for (auto const& more : runs) {
    Json const one = account(more);
    EXPECT_EQ(one["logits_sha256"], all["logits_sha256"]) << ::testing::PrintToString(more);
  }
}

TEST_F(CudaProgram, TakesTheRoutingFromAHashFunction) {
  testing::write_file(folder_ / "data.tsv", "sentence\tlabel\nA good song.\t1\nNo rhythm at all.\t0\n");
  auto const answer = [&](std::vector<std::string> const& more) {
    std::string const json = folder_ / "hash.json";
    std::vector<std::string> arguments = {
        "classify", "--model", SIDA_REFERENCE_MODEL, "--data", folder_ / "data.tsv", "--quiet",
        "--json",   json,      "--device",           "cuda"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    Outcome const outcome = run(arguments);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return outcome.status == 0 ? Json::parse(testing::read_file(json))["logits_sha256"].get<std::string>() : "";
  };
  EXPECT_EQ(answer({"--device-budget", "20%", "--prefetch", "hash"}), answer({"--device-budget", "100%"}));
  EXPECT_EQ(answer({"--device-budget", "20%", "--mode", "predicted", "--top-k", "2"}),
            answer({"--device-budget", "100%", "--mode", "predicted", "--top-k", "2"}));
}

TEST_F(CudaProgram, RefusesABudgetBelowOneExpert) {
  Outcome const outcome = run(classify({"--device-budget", "0"}));
  EXPECT_NE(outcome.status, 0);
  EXPECT_TRUE(outcome.err.starts_with("sida: error: ")) << outcome.err;
}

TEST_F(CudaProgram, EndsWith130WhenInterruptedAndLeavesNoOutput) {
  testing::write_file(data_, golden_.jsonl(400));
  for (auto const* const prefetch : {"none", "oracle"}) {
    Program program(classify({"--device-budget", "25%", "--prefetch", prefetch, "--out", folder_ / "preds.tsv"}));
    ASSERT_TRUE(program.wait_for_handler(SIGINT));
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    auto const sent = std::chrono::steady_clock::now();
    program.send(SIGINT);
    Outcome const outcome = program.wait();
    EXPECT_LT(std::chrono::steady_clock::now() - sent, std::chrono::seconds(30)) << prefetch;
    EXPECT_EQ(outcome.status, 130) << outcome.err;
    EXPECT_EQ(outcome.err, "sida: error: interrupted\n");
    EXPECT_EQ(folder_.names(), std::vector<std::string>{"data.jsonl"});
  }
}

}  // namespace
}  // namespace sida::cli::test
