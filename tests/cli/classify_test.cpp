#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cli/digest.hpp"
#include "cli/npy.hpp"
#include "sida/policy/belady.hpp"
#include "tests/cli/golden.hpp"
#include "tests/cli/program.hpp"

namespace sida::cli::test {
namespace {

using Json = nlohmann::json;

class Classify : public ::testing::Test {
 protected:
  explicit Classify(std::string const& name = "plain") : golden(name) { testing::write_file(data, golden.jsonl()); }

  /// The account of a run under `more`.
  Json account(std::vector<std::string> const& more = {}) {
    std::vector<std::string> arguments = {"classify", "--model", golden.folder, "--data",
                                          data,       "--json",  json,          "--quiet"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    Outcome const outcome = run(arguments);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(outcome.err, "");
    return outcome.status == 0 ? Json::parse(testing::read_file(json)) : Json::object();
  }

  std::size_t sequences() const { return golden.lengths.size(); }
  std::size_t labels() const { return golden.logits.size() / sequences(); }

  Golden golden;
  testing::TempDir folder;
  std::string data = folder / "data.jsonl";
  std::string json = folder / "run.json";
};

class ClassifyTight : public Classify {
 protected:
  ClassifyTight() : Classify("two_experts_tight") {}
};

std::vector<std::string> lines_of(std::string const& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

TEST_F(Classify, AccountsForTheRun) {
  Json const run = account({"--budget", "25%", "--batch", "2"});
  for (auto const* const key : {"sequences_per_s",
                                "tokens_per_s",
                                "latency_ms_p50",
                                "latency_ms_p99",
                                "accuracy",
                                "logits_sha256",
                                "expert_bytes_total",
                                "budget_bytes",
                                "peak_resident_expert_bytes",
                                "expert_bytes_read",
                                "min_expert_bytes_read",
                                "events",
                                "expert_hits",
                                "expert_misses",
                                "stall_s",
                                "wall_s",
                                "peak_rss_bytes",
                                "slots",
                                "mode",
                                "policy",
                                "prefetch",
                                "threads",
                                "batch",
                                "overread_bytes"}) {
    EXPECT_TRUE(run.contains(key)) << key;
  }
  EXPECT_EQ(run["slots"], 4);  // of 2 layers of 8 experts
  EXPECT_EQ(run["expert_bytes_total"], 16 * run["slot_bytes"].get<int>());
  EXPECT_EQ(run["budget_bytes"], 4 * run["slot_bytes"].get<int>());
  EXPECT_LE(run["peak_resident_expert_bytes"], run["budget_bytes"]);
  EXPECT_EQ(run["expert_bytes_read"], run["expert_misses"].get<int>() * run["slot_bytes"].get<int>());
  EXPECT_GE(run["expert_bytes_read"], run["min_expert_bytes_read"]);
  EXPECT_GT(run["min_expert_bytes_read"], 0);
  EXPECT_EQ(run["sequences"], sequences());
  EXPECT_EQ(run["tokens"], golden.ids.size());
  EXPECT_EQ(run["batches"], (sequences() + 1) / 2);
  EXPECT_LE(run["latency_ms_p50"], run["latency_ms_p99"]);
  EXPECT_EQ(run["mode"], "exact");
  EXPECT_EQ(run["policy"], "lfru");
  EXPECT_EQ(run["prefetch"], "none");
  EXPECT_EQ(run["batch"], 2);
}

TEST_F(Classify, NamesNoLeastAfterAWarmUp) {
  Json const run = account({"--budget", "25%", "--warm-up"});
  EXPECT_EQ(run["warm_up"], "yes");
  EXPECT_FALSE(run.contains("min_expert_bytes_read")) << "it would be that of a run that starts with no expert";
  std::vector<std::string> arguments = {"classify", "--model", golden.folder, "--data", data};
  EXPECT_NE(test::run(arguments).out.find("; the least possible is"), std::string::npos);
  arguments.emplace_back("--warm-up");
  EXPECT_EQ(test::run(arguments).out.find("the least possible"), std::string::npos);
}

TEST_F(Classify, WritesOneKeyPerLine) {
  Json const run = account();
  EXPECT_EQ(lines_of(testing::read_file(json)).size(), run.size() + 2);
}

TEST_F(Classify, KeepsPartialBudgetsOfBytesAsGiven) {
  Json const run = account({"--budget", "10000"});
  EXPECT_EQ(run["budget_bytes"], 10000);
  EXPECT_EQ(run["slots"], 2);
}

TEST_F(Classify, AnswersAsTransformersDoes) {
  account({"--budget", "25%", "--out", folder / "preds.tsv", "--batch", "3"});
  auto const lines = lines_of(testing::read_file(folder / "preds.tsv"));
  ASSERT_EQ(lines.size(), sequences() + 1);
  EXPECT_EQ(lines[0], "index\tlabel\tscore_0\tscore_1\tscore_2");
  float const largest = std::abs(*std::ranges::max_element(golden.logits, {}, [](float x) { return std::abs(x); }));
  for (std::size_t s = 0; s < sequences(); ++s) {
    std::istringstream line(lines[s + 1]);
    std::size_t index = 0;
    std::int64_t label = -1;
    line >> index >> label;
    EXPECT_EQ(index, s);
    auto const* const expected = &golden.logits[s * labels()];
    EXPECT_EQ(label, std::max_element(expected, expected + labels()) - expected);
    for (std::size_t i = 0; i < labels(); ++i) {
      float score = 0;
      line >> score;
      EXPECT_NEAR(score, expected[i], 1e-4F * largest);
    }
  }
}

TEST_F(Classify, DigestsTheScoresThatItWrites) {
  Json const run = account({"--out", folder / "preds.tsv"});
  auto digest = Sha256::create();
  ASSERT_TRUE(digest);
  auto const lines = lines_of(testing::read_file(folder / "preds.tsv"));
  for (std::size_t s = 1; s < lines.size(); ++s) {
    std::istringstream line(lines[s]);
    std::string skipped;
    line >> skipped >> skipped;
    for (float score = 0; line >> score;) digest->update(std::as_bytes(std::span(&score, 1)));
  }
  EXPECT_EQ(run["logits_sha256"], digest->hex());
}

TEST_F(Classify, CountsRightAnswersWhereThereAreLabels) {
  std::size_t right = 0;
  for (std::size_t s = 0; s < sequences(); ++s) {
    auto const* const scores = &golden.logits[s * labels()];
    if (std::max_element(scores, scores + labels()) - scores == static_cast<std::ptrdiff_t>(s % 2)) ++right;
  }
  EXPECT_DOUBLE_EQ(account()["accuracy"].get<double>(), static_cast<double>(right) / static_cast<double>(sequences()));
  testing::write_file(data, "{\"ids\": [3, 4, 1]}\n");
  EXPECT_FALSE(account().contains("accuracy"));
}

TEST_F(Classify, GivesTheSameBytesHoweverItLoads) {
  std::string const expected = account({"--batch", "2"})["logits_sha256"];
  for (auto const* const budget : {"1%", "13%", "50%"}) {
    for (auto const* const policy : {"fifo", "lru", "lfu", "lfru", "next-use"}) {
      for (auto const* const prefetch : {"none", "oracle", "popularity", "wrong"}) {
        std::vector<std::string> arguments = {"--batch", "2",          "--budget", budget,      "--policy",
                                              policy,    "--prefetch", prefetch,   "--threads", "2"};
        if (prefetch != std::string("none")) arguments.insert(arguments.end(), {"--lookahead", "3"});
        Json const run = account(arguments);
        EXPECT_EQ(run["logits_sha256"], expected) << budget << " " << policy << " " << prefetch;
        EXPECT_LE(run["peak_resident_expert_bytes"], run["budget_bytes"]);
      }
    }
  }
  for (auto const* const lookahead : {"0", "1", "1000"}) {
    EXPECT_EQ(
        account({"--batch", "2", "--budget", "25%", "--prefetch", "oracle", "--lookahead", lookahead})["logits_sha256"],
        expected);
  }
  EXPECT_EQ(account({"--batch", "2", "--read-path", "mmap"})["logits_sha256"], expected);
}

TEST_F(Classify, CountsFromAnEmptyStoreAfterTheOraclesFirstPass) {
  Json const run = account({"--prefetch", "oracle", "--policy", "next-use", "--lookahead", "32"});
  Json const plain = account();
  EXPECT_EQ(run["events"], plain["events"]);
  EXPECT_EQ(run["min_expert_bytes_read"], plain["min_expert_bytes_read"]);
  EXPECT_EQ(run["expert_bytes_read"], run["min_expert_bytes_read"]);  // all fit: each expert once
  EXPECT_EQ(run["planned_events"], run["events"]);
  EXPECT_GT(run["prefetches"], 0);
}

TEST_F(Classify, ReadsLittleMoreThanTheLeastWithAnOracle) {
  testing::write_file(data, golden.jsonl(4));
  for (auto const* const budget : {"20%", "40%"}) {
    Json const run = account({"--prefetch", "oracle", "--policy", "next-use", "--lookahead", "64", "--budget", budget});
    EXPECT_LE(run["expert_bytes_read"].get<double>(), 1.02 * run["min_expert_bytes_read"].get<double>()) << budget;
  }
}

TEST_F(Classify, RecordsTheRouting) {
  Json const run = account({"--record", folder / "record", "--batch", "2", "--budget", "13%"});
  Json const meta = Json::parse(testing::read_file(folder / "record/meta.json"));
  EXPECT_EQ(meta["n_experts"], 8);
  EXPECT_EQ(meta["event"], "batch");
  EXPECT_EQ(meta["slots"], run["slots"]);
  EXPECT_EQ(meta["slot_bytes"], run["slot_bytes"]);

  auto const experts = read_npy(folder / "record/experts.npy");
  ASSERT_TRUE(experts) << experts.message();
  ASSERT_EQ(experts->type, NpyType::u16);
  ASSERT_EQ(experts->shape, (std::vector<std::uint64_t>{golden.ids.size(), 2, 1}));
  auto const chosen = experts->as<std::uint16_t>();
  ASSERT_EQ(chosen.size(), golden.experts.size());
  for (std::size_t i = 0; i < chosen.size(); ++i) EXPECT_EQ(chosen[i], golden.experts[i]);

  auto const lines = lines_of(testing::read_file(folder / "record/seqs.jsonl"));
  ASSERT_EQ(lines.size(), sequences());
  std::uint64_t offset = 0;
  std::vector<std::vector<ExpertIndex>> events;
  for (std::size_t s = 0; s < lines.size(); ++s) {
    Json const line = Json::parse(lines[s]);
    EXPECT_EQ(line["offset"], offset);
    EXPECT_EQ(line["n_tokens"], golden.lengths[s]);
    EXPECT_EQ(line["batch"], s / 2);
    events.resize((s / 2 + 1) * 2);
    for (std::uint64_t t = offset; t < offset + static_cast<std::uint64_t>(golden.lengths[s]); ++t) {
      for (std::size_t layer = 0; layer < 2; ++layer) {
        auto& event = events[s / 2 * 2 + layer];
        ExpertIndex const expert = static_cast<ExpertIndex>(layer * 8 + chosen[t * 2 + layer]);
        if (auto const at = std::ranges::lower_bound(event, expert); at == event.end() || *at != expert) {
          event.insert(at, expert);
        }
      }
    }
    offset += static_cast<std::uint64_t>(golden.lengths[s]);
  }
  EXPECT_EQ(belady_min_loads(events, 16, run["slots"]) * run["slot_bytes"].get<std::uint64_t>(),
            run["min_expert_bytes_read"].get<std::uint64_t>());
}

TEST_F(ClassifyTight, RecordsDroppedTokensAsAbsent) {
  account({"--record", folder / "record"});
  auto const experts = read_npy(folder / "record/experts.npy");
  ASSERT_TRUE(experts) << experts.message();
  auto const chosen = experts->as<std::uint16_t>();
  ASSERT_EQ(chosen.size(), golden.experts.size());
  std::size_t dropped = 0;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    EXPECT_EQ(chosen[i], golden.kept[i] != 0 ? golden.experts[i] : 65535);
    dropped += chosen[i] == 65535 ? 1 : 0;
  }
  EXPECT_GT(dropped, 0U);
}

TEST_F(ClassifyTight, DropsNothingWithoutACapacity) {
  Json const with = account({"--capacity", "hf"});
  Json const without = account({"--capacity", "none", "--record", folder / "record"});
  EXPECT_NE(with["logits_sha256"], without["logits_sha256"]);
  auto const experts = read_npy(folder / "record/experts.npy");
  ASSERT_TRUE(experts) << experts.message();
  for (auto const expert : experts->as<std::uint16_t>()) EXPECT_LT(expert, 2);
}

TEST_F(Classify, ReadsStandardInput) {
  std::string const expected = account()["logits_sha256"];
  ASSERT_EQ(run({"classify", "--model", golden.folder, "-", "--json", json, "--quiet"}, data).status, 0);
  EXPECT_EQ(Json::parse(testing::read_file(json))["logits_sha256"], expected);
}

TEST_F(Classify, PrintsASummaryUnlessQuiet) {
  Outcome const outcome = run({"classify", "--model", golden.folder, "--data", data});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_NE(outcome.out.find("throughput"), std::string::npos);
  EXPECT_EQ(outcome.err, "");  // no progress bar without a terminal
}

}  // namespace
}  // namespace sida::cli::test
