// `sida fidelity` on the shipped model: its figures against those of other commands, its controls, its errors.
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/cli/program.hpp"

namespace sida::cli::test {
namespace {

using Json = nlohmann::json;

class Fidelity : public ::testing::Test {
 protected:
  void SetUp() override {
    // Some of the reviews, for speed.
    std::ifstream in(model + "/reviews.tsv");
    std::ofstream out(data);
    int lines = 31;
    for (std::string line; lines > 0 && std::getline(in, line); --lines) out << line << '\n';
  }

  Outcome command(std::string const& name, std::vector<std::string> const& more) {
    std::vector<std::string> arguments = {name, "--data", data, "--json", json};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  Json figures(std::string const& name, std::vector<std::string> const& more) {
    Outcome const outcome = command(name, more);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return outcome.status == 0 ? Json::parse(testing::read_file(json)) : Json::object();
  }
  void expect_failure(int status, std::string const& part, std::vector<std::string> const& more) {
    Outcome const outcome = command("fidelity", more);
    EXPECT_EQ(outcome.status, status) << outcome.err;
    EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
    EXPECT_FALSE(std::filesystem::exists(json)) << "a failure leaves no file";
  }

  std::string model = SIDA_REFERENCE_MODEL;
  testing::TempDir folder;
  std::string data = folder / "some.tsv";
  std::string json = folder / "figures.json";
};

TEST_F(Fidelity, AgreesWithClassify) {
  Json const all = figures("fidelity", {"--model", model});
  Json const exact = figures("classify", {"--model", model, "--prefetch", "hash"});
  EXPECT_EQ(all["accuracy_exact"], exact["accuracy"]);
  for (std::string const key : {"hit_rate_top1", "hit_rate_top2", "hit_rate_top3", "hit_rate_top1_layer_2"}) {
    EXPECT_EQ(all[key], exact[key]) << key;
  }
  for (std::string const k : {"1", "2", "3"}) {
    Json const predicted = figures("classify", {"--model", model, "--mode", "predicted", "--top-k", k});
    EXPECT_EQ(all["accuracy_top" + k], predicted["accuracy"]);
  }
  EXPECT_FALSE(all.contains("kl_exact"));
  EXPECT_FALSE(all.contains("padded_hit_rate_top1"));
  EXPECT_EQ(all["sequences"], 30);
}

TEST_F(Fidelity, IsNearerToExactModeThanItsControls) {
  Json const all = figures("fidelity", {"--model", model});
  EXPECT_GT(all["kl_top1"], 0.0);
  EXPECT_LT(all["kl_top1"], 0.5 * all["kl_random"].get<double>());
  EXPECT_LT(all["kl_top1"], 0.5 * all["kl_zeroed"].get<double>());
  EXPECT_GT(all["agreement_top1"], all["agreement_random"]);
  EXPECT_GT(all["f1_exact"], 0.5);
}

TEST_F(Fidelity, RandomExpertsFollowTheSeedAndNothingElse) {
  Json const once = figures("fidelity", {"--model", model});
  Json const again = figures("fidelity", {"--model", model, "--threads", "1", "--budget", "20%"});
  Json const other = figures("fidelity", {"--model", model, "--seed", "2"});
  EXPECT_EQ(once["kl_random"], again["kl_random"]);
  EXPECT_NE(once["kl_random"], other["kl_random"]);
  EXPECT_EQ(once["kl_zeroed"], other["kl_zeroed"]);
}

/// A copy of the model at `from` whose experts give 0, since their second matrices are 0.
void copy_with_experts_of_zero(std::string const& from, std::string const& to) {
  std::filesystem::create_directories(to);
  for (std::string const name : {"config.json", "spiece.model", "predictor.safetensors"}) {
    std::filesystem::copy_file(from + "/" + name, to + "/" + name);
  }
  std::string bytes = testing::read_file(from + "/model.safetensors");
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  std::uint64_t const begin = sizeof header_bytes + header_bytes;
  auto const header = Json::parse(bytes.substr(sizeof header_bytes, header_bytes));
  int zeroed = 0;
  for (auto const& [name, tensor] : header.items()) {
    if (name.find(".mlp.experts.") == std::string::npos || !name.ends_with(".wo.weight")) continue;
    auto const first = tensor["data_offsets"][0].get<std::uint64_t>();
    auto const last = tensor["data_offsets"][1].get<std::uint64_t>();
    std::memset(bytes.data() + begin + first, 0, last - first);
    ++zeroed;
  }
  ASSERT_EQ(zeroed, 3 * 32);
  std::ofstream(to + "/model.safetensors", std::ios::binary) << bytes;
}

TEST_F(Fidelity, ZeroedLayersAnswerAsExpertsOfZeroDo) {
  std::string const zero = folder / "zero";
  copy_with_experts_of_zero(model, zero);
  Json const all = figures("fidelity", {"--model", model});
  Json const without = figures("classify", {"--model", zero});
  EXPECT_EQ(all["accuracy_zeroed"], without["accuracy"]);
  Json const same = figures("fidelity", {"--model", zero});
  EXPECT_EQ(same["kl_zeroed"], 0.0) << "there is nothing to take away";
  EXPECT_EQ(same["kl_random"], 0.0);
  EXPECT_EQ(same["kl_top1"], 0.0);
}

TEST_F(Fidelity, CountsPaddingWhereItIsAskedTo) {
  Json const padded = figures("fidelity", {"--model", model, "--pad-to", "48"});
  ASSERT_TRUE(padded.contains("padded_hit_rate_top1_layer_0"));
  EXPECT_NE(padded["padded_hit_rate_top1"], padded["hit_rate_top1"]);
  EXPECT_EQ(padded["pad_to"], 48);
  Json const shorter_than_all = figures("fidelity", {"--model", model, "--pad-to", "1", "--capacity", "none"});
  EXPECT_EQ(shorter_than_all["padded_hit_rate_top1"], shorter_than_all["hit_rate_top1"]);
}

TEST_F(Fidelity, ShowsATable) {
  Outcome const outcome = command("fidelity", {"--model", model});
  for (std::string const part : {"accuracy", "predicted, top-3", "random experts", "MoE layers zeroed", "mean"}) {
    EXPECT_NE(outcome.out.find(part), std::string::npos) << outcome.out;
  }
  EXPECT_TRUE(command("fidelity", {"--model", model, "--quiet"}).out.empty());
}

TEST_F(Fidelity, SaysWhatIsWrong) {
  expect_failure(2, "--pad-to", {"--model", model, "--pad-to", "x"});
  expect_failure(2, "input", {"--model", model, "--text", "both"});
  expect_failure(1, "/nowhere.safetensors", {"--model", model, "--predictor", "/nowhere.safetensors"});
  std::string const packed = folder / "model.sida";
  ASSERT_EQ(run({"pack", model, "--out", packed}).status, 0);
  expect_failure(1, "--predictor", {"--model", packed});
  EXPECT_EQ(figures("fidelity", {"--model", packed, "--predictor", model + "/predictor.safetensors"})["accuracy_top1"],
            figures("fidelity", {"--model", model})["accuracy_top1"]);
}

}  // namespace
}  // namespace sida::cli::test
