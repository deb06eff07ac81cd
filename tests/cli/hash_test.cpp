// The hash function as the program uses it: a hint in exact mode, the router's stand-in in predicted mode.
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/cli/program.hpp"

namespace sida::cli::test {
namespace {

using Json = nlohmann::json;

class HashClassify : public ::testing::Test {
 protected:
  Outcome classify(std::vector<std::string> const& more) {
    std::vector<std::string> arguments = {"classify", "--model", model,    "--data", model + "/reviews.tsv",
                                          "--json",   json,      "--quiet"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  Json account(std::vector<std::string> const& more = {}) {
    Outcome const outcome = classify(more);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return outcome.status == 0 ? Json::parse(testing::read_file(json)) : Json::object();
  }
  void expect_failure(int status, std::string const& part, std::vector<std::string> const& more) {
    Outcome const outcome = classify(more);
    EXPECT_EQ(outcome.status, status) << outcome.err;
    EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
  }

  std::string model = SIDA_REFERENCE_MODEL;
  testing::TempDir folder;
  std::string data = folder / "reviews.tsv";
  std::string json = folder / "run.json";
};

TEST_F(HashClassify, AsAHintChangesNoByteAndIsJudged) {
  Json const plain = account({"--budget", "25%"});
  Json const hinted = account({"--budget", "25%", "--policy", "next-use", "--prefetch", "hash"});
  EXPECT_EQ(hinted["logits_sha256"], plain["logits_sha256"]);
  EXPECT_EQ(hinted["mode"], "exact");
  EXPECT_EQ(hinted["prefetch"], "hash");
  EXPECT_FALSE(plain.contains("hit_rate_top1"));
  EXPECT_GT(hinted["hit_rate_top1"], 0.75);
  EXPECT_LT(hinted["hit_rate_top1"], 1.0);
  EXPECT_GE(hinted["hit_rate_top3"], hinted["hit_rate_top1"]);
  EXPECT_TRUE(hinted.contains("hit_rate_top3_layer_2"));
  EXPECT_GT(hinted["prefetch_used"], 0);
  EXPECT_GT(hinted["mispredicted_loads"], 0);
  EXPECT_GT(hinted["hash_s"], 0.0);
  // How much is loaded ahead in vain depends on how fast this machine computes; what explains the bytes does not: MIN,
  // what was mispredicted and what was wasted (0.95 to 1.05 of it; 1.13 and more by LFRU with the same hint).
  double const slot = hinted["slot_bytes"];
  double const explained =
      hinted["min_expert_bytes_read"].get<double>() +
      slot * (hinted["mispredicted_loads"].get<double>() + hinted["prefetch_wasted"].get<double>());
  EXPECT_LE(hinted["expert_bytes_read"], 1.1 * explained);
  EXPECT_LE(hinted["prefetch_wasted"].get<double>(), 0.25 * hinted["prefetch_used"].get<double>());
}

TEST_F(HashClassify, AsAHintReadsLittleMoreThanMinForBatches) {
  // Of 4 sentences: 1.03 to 1.09 times MIN, however fast this machine computes.
  Json const hinted = account({"--budget", "25%", "--policy", "next-use", "--prefetch", "hash", "--batch", "4"});
  EXPECT_LE(hinted["expert_bytes_read"], 1.25 * hinted["min_expert_bytes_read"].get<double>());
}

TEST_F(HashClassify, InPredictedModeStandsInForTheRouters) {
  Json const exact = account();
  Json const predicted = account({"--mode", "predicted"});
  EXPECT_EQ(predicted["mode"], "predicted");
  EXPECT_EQ(predicted["prefetch"], "hash");
  EXPECT_NE(predicted["logits_sha256"], exact["logits_sha256"]);
  EXPECT_NEAR(predicted["accuracy"], exact["accuracy"].get<double>(), 0.1);
  EXPECT_LT(predicted["dense_bytes"], exact["dense_bytes"]) << "routers are not loaded";
  EXPECT_FALSE(predicted.contains("hit_rate_top1")) << "no router said anything";
  EXPECT_EQ(predicted["mispredicted_loads"], 0) << "the plan is what happens";
}

TEST_F(HashClassify, PredictedAnswersAreTheSameBytesUnderAnyBudget) {
  for (std::vector<std::string> const& top : {std::vector<std::string>{}, {"--top-k", "3", "--renormalise"}}) {
    std::vector<std::string> arguments = {"--mode", "predicted"};
    arguments.insert(arguments.end(), top.begin(), top.end());
    Json const all = account(arguments);
    arguments.insert(arguments.end(), {"--budget", "5%", "--prefetch", "none", "--threads", "1"});
    Json const tight = account(arguments);
    EXPECT_EQ(tight["logits_sha256"], all["logits_sha256"]);
    EXPECT_EQ(tight["prefetches"], 0);
    EXPECT_GT(tight["evictions"], 0);
  }
}

TEST_F(HashClassify, RecordsWhatThePlanDecided) {
  Outcome const outcome = classify({"--mode", "predicted", "--top-k", "2", "--record", folder / "routing"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  std::string const experts = testing::read_file(folder / "routing/experts.npy");
  EXPECT_NE(experts.find(", 3, 2)"), std::string::npos) << "[tokens, MoE layers, k]";
}

TEST_F(HashClassify, SaysWhatIsWrong) {
  expect_failure(2, "predicted mode takes hash or none", {"--mode", "predicted", "--prefetch", "oracle"});
  expect_failure(2, "--mode predicted", {"--top-k", "2"});
  expect_failure(2, "--mode predicted", {"--renormalise"});
  expect_failure(2, "--top-k", {"--mode", "predicted", "--top-k", "0"});
  expect_failure(2, "--likely", {"--prefetch", "hash", "--likely", "101"});
  expect_failure(1, "--top-k: 40 experts per token, but", {"--mode", "predicted", "--top-k", "40"});
  expect_failure(1, "/nowhere.safetensors", {"--prefetch", "hash", "--predictor", "/nowhere.safetensors"});
  expect_failure(1, "'compression_fc.weight'", {"--prefetch", "hash", "--predictor", model + "/model.safetensors"});
  std::string const packed = folder / "model.sida";
  ASSERT_EQ(run({"pack", model, "--out", packed}).status, 0);
  model = packed;
  Outcome const outcome = run({"classify", "--model", packed, "--text", "fine", "--prefetch", "hash"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.err.find("--predictor"), std::string::npos) << outcome.err;
}

TEST_F(HashClassify, RefusesTheHashFunctionOfAnotherModel) {
  expect_failure(
      1, "this hash function is for",
      {"--prefetch", "hash", "--predictor", std::string(SIDA_TEST_DATA) + "/goldens/predictor/predictor.safetensors"});
}

}  // namespace
}  // namespace sida::cli::test
