#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cli/npy.hpp"
#include "sida/kernels/cpu.hpp"
#include "tests/cli/golden.hpp"
#include "tests/cli/program.hpp"

namespace sida::cli::test {
namespace {

float largest(std::vector<float> const& values) {
  float most = 0;
  for (float const value : values) most = std::max(most, std::abs(value));
  return most;
}

NpyArray encode(std::string const& model, Golden const& golden, std::vector<std::string> const& more = {}) {
  testing::TempDir folder;
  testing::write_file(folder / "data.jsonl", golden.jsonl());
  std::vector<std::string> arguments = {
      "encode", "--model", model, "--data", folder / "data.jsonl", "--out", folder / "hidden.npy", "--quiet"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  Outcome const outcome = run(arguments);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  auto array = read_npy(folder / "hidden.npy");
  EXPECT_TRUE(array) << array.message();
  return array ? *std::move(array) : NpyArray{};
}

void expect_near(NpyArray const& array, std::vector<float> const& expected) {
  ASSERT_EQ(array.type, NpyType::f32);
  auto const values = array.as<float>();
  ASSERT_EQ(values.size(), expected.size());
  float const tolerance = 1e-4F * largest(expected);
  for (std::size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(values[i], expected[i], tolerance) << i;
}

TEST(Encode, WritesHiddenStatesAsTransformersDoes) {
  // The best that does not round what bf16 weights are multiplied with, as the golden's float32 does not.
  std::string const isa(to_string(std::min(best_cpu_isa(), CpuIsa::avx512)));
  for (auto const* const name : {"plain", "two_experts_tight", "sharded", "bfloat16", "full_model"}) {
    Golden const golden(name);
    std::uint64_t const d_model = golden.hidden.size() / golden.ids.size();
    for (auto const* const batch : {"1", "4"}) {
      NpyArray const array = encode(golden.folder, golden, {"--batch", batch, "--isa", isa});
      EXPECT_EQ(array.shape, (std::vector<std::uint64_t>{golden.ids.size(), d_model}));
      expect_near(array, golden.hidden);
    }
  }
}

TEST(Encode, WorksOnABareEncoder) {
  Golden const golden("plain");
  testing::TempDir folder;
  write_bare_encoder(golden.folder, folder / "bare");
  expect_near(encode(folder / "bare", golden, {"--budget", "25%"}), golden.hidden);
}

TEST(Encode, PoolsTheMeanOverTheTokensOfASequence) {
  Golden const golden("plain");
  std::size_t const d_model = golden.hidden.size() / golden.ids.size();
  std::vector<float> expected;
  std::size_t first = 0;
  for (std::int32_t const length : golden.lengths) {
    for (std::size_t c = 0; c < d_model; ++c) {
      double sum = 0;
      for (std::size_t t = 0; t < static_cast<std::size_t>(length); ++t)
        sum += golden.hidden[(first + t) * d_model + c];
      expected.push_back(static_cast<float>(sum / length));
    }
    first += static_cast<std::size_t>(length);
  }
  NpyArray const array = encode(golden.folder, golden, {"--pool", "mean", "--batch", "3"});
  EXPECT_EQ(array.shape, (std::vector<std::uint64_t>{golden.lengths.size(), d_model}));
  expect_near(array, expected);
}

TEST(Encode, TakesTheCapacityRule) {
  Golden const golden("two_experts_tight");
  NpyArray const with = encode(golden.folder, golden);
  EXPECT_NE(with.bytes, encode(golden.folder, golden, {"--capacity", "none"}).bytes);
  EXPECT_NE(with.bytes, encode(golden.folder, golden, {"--capacity", "hf-4.32"}).bytes);
}

}  // namespace
}  // namespace sida::cli::test
