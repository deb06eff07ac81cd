// The hash function against PyTorch, against itself in other company, and against broken files.
#include "sida/predict/lstm_hash.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <stop_token>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "sida/io/safetensors.hpp"
#include "tests/support/stopped_run.hpp"

namespace sida {
namespace {

std::string golden(std::string const& name) { return std::string(SIDA_TEST_DATA) + "/goldens/predictor/" + name; }

/// Tensors in memory, to be broken by a test.
class EditedTensors final : public TensorSource {
 public:
  explicit EditedTensors(std::string const& path) : path_(path) {
    auto const file = open_safetensors(path, ReadPath::pread);
    if (!file) return;
    for (TensorInfo const& info : (*file)->tensors()) {
      infos_.push_back(info);
      auto& bytes = bytes_[info.name];
      bytes.resize(info.size_bytes);
      EXPECT_TRUE((*file)->read(info.name, 0, bytes));
    }
  }
  std::string const& path() const noexcept override { return path_; }
  std::span<TensorInfo const> tensors() const noexcept override { return infos_; }
  Status read(std::string_view name, std::uint64_t offset, std::span<std::byte> dst) const override {
    if (name == failing) return {Errc::io, "a bad sector"};
    std::memcpy(dst.data(), bytes_.at(std::string(name)).data() + offset, dst.size());
    return {};
  }
  ReadStats read_stats() const noexcept override { return {}; }

  TensorInfo& info(std::string const& name) {
    return *std::ranges::find_if(infos_, [&](TensorInfo const& info) { return info.name == name; });
  }
  void remove(std::string const& name) {
    std::erase_if(infos_, [&](TensorInfo const& info) { return info.name == name; });
  }
  void rename(std::string const& from, std::string const& to) {
    info(from).name = to;
    bytes_[to] = std::move(bytes_.at(from));
    std::ranges::sort(infos_, {}, &TensorInfo::name);
  }
  template <class T>
  std::vector<T> values(std::string const& name) const {
    auto const& bytes = bytes_.at(name);
    std::vector<T> all(bytes.size() / sizeof(T));
    std::memcpy(all.data(), bytes.data(), bytes.size());
    return all;
  }

  std::string failing;

 private:
  std::string path_;
  std::vector<TensorInfo> infos_;
  std::map<std::string, std::vector<std::byte>> bytes_;
};

class LstmHashTest : public testing::Test {
 protected:
  static constexpr std::int64_t kModel = 20;
  static constexpr std::int64_t kExperts = 7;
  static constexpr std::int64_t kLayers = 3;

  void SetUp() override {
    EditedTensors const file(golden("golden.safetensors"));
    embeddings_ = file.values<float>("embeddings");
    auto const offsets = file.values<std::int32_t>("offsets");
    batch_.sequence_offsets.assign(offsets.begin(), offsets.end());
    batch_.ids.resize(batch_.sequence_offsets.back());
  }

  LstmHash load(LstmHashOptions const& options = {}) {
    auto hash = LstmHash::load(source_, options, pool_, memory_);
    EXPECT_TRUE(hash) << hash.status().message();
    return *std::move(hash);
  }
  PredictorInput input() const { return {batch_, {embeddings_.data(), batch_.tokens(), kModel}}; }

  /// Sequence `i` as a batch of its own.
  TokenBatch alone(std::size_t i) const {
    TokenBatch batch;
    batch.append(std::vector<std::int32_t>(batch_.sequence_offsets[i + 1] - batch_.sequence_offsets[i]));
    return batch;
  }
  Matrix<float const> embeddings_of(std::size_t i) const {
    return {embeddings_.data() + batch_.sequence_offsets[i] * kModel,
            std::int64_t{batch_.sequence_offsets[i + 1]} - batch_.sequence_offsets[i], kModel};
  }

  void expect_load_error(Errc code, std::string const& part, LstmHashOptions const& options = {}) {
    auto const hash = LstmHash::load(source_, options, pool_, memory_);
    ASSERT_FALSE(hash);
    EXPECT_EQ(hash.error().code(), code) << hash.error().message();
    EXPECT_NE(hash.error().message().find(part), std::string::npos) << hash.error().message();
  }

  HostMemory memory_;
  InlinePool pool_;
  EditedTensors source_{golden("predictor.safetensors")};
  TokenBatch batch_;
  std::vector<float> embeddings_;
};

void expect_close(std::vector<float> const& ours, std::vector<float> const& theirs) {
  ASSERT_EQ(ours.size(), theirs.size());
  float largest = 0;
  for (float const value : theirs) largest = std::max(largest, std::fabs(value));
  for (std::size_t i = 0; i < ours.size(); ++i) ASSERT_NEAR(ours[i], theirs[i], 1e-5F * largest) << i;
}

TEST_F(LstmHashTest, ComputesWhatPyTorchDoes) {
  EditedTensors const file(golden("golden.safetensors"));
  for (CpuIsa const isa : runnable_cpu_isas()) {
    auto const exact = load({.isa = isa}).logits(input());
    ASSERT_TRUE(exact);
    expect_close(*exact, file.values<float>("logits"));
    auto const released = load({.sparsemax = SparsemaxRule::released, .isa = isa}).logits(input());
    ASSERT_TRUE(released);
    expect_close(*released, file.values<float>("logits_released"));
  }
}

TEST_F(LstmHashTest, KnowsItsShape) {
  auto const hash = load();
  EXPECT_EQ(hash.d_model(), kModel);
  EXPECT_EQ(hash.hidden(), 24);
  EXPECT_EQ(hash.experts(), kExperts);
  EXPECT_EQ(hash.layers(), kLayers);
  EXPECT_GT(hash.weight_bytes(), std::size_t{4} * (20 * 24 + 4 * 4 * 24 * 24));
}

TEST_F(LstmHashTest, DoesNotDependOnCompanyOrThreads) {
  auto const together = load().logits(input());
  ASSERT_TRUE(together);
  for (std::size_t threads : {1U, 2U, 3U, 7U}) {
    WorkerPool pool(threads);
    auto const hash = LstmHash::load(source_, {}, pool, memory_);
    ASSERT_TRUE(hash);
    EXPECT_EQ(*hash->logits(input()), *together) << threads;
    for (std::size_t i = 0; i + 1 < batch_.sequence_offsets.size(); ++i) {
      TokenBatch const batch = alone(i);
      auto const one = hash->logits({batch, embeddings_of(i)});
      ASSERT_TRUE(one);
      for (std::int64_t layer = 0; layer < kLayers; ++layer) {
        auto const from = one->begin() + layer * batch.tokens() * kExperts;
        auto const in = together->begin() + (layer * batch_.tokens() + batch_.sequence_offsets[i]) * kExperts;
        EXPECT_TRUE(std::equal(from, from + batch.tokens() * kExperts, in)) << threads << " " << i << " " << layer;
      }
    }
  }
}

TEST_F(LstmHashTest, StopsWithinAPrediction) {
  test::WatchedMemory memory;
  auto const changed_bytes = [&](std::size_t stops_at, Errc code) {
    std::stop_source source;
    test::StopsAtRun pool(memory, source, stops_at);
    auto const hash = LstmHash::load(source_, {.stop = source.get_token()}, pool, memory);
    EXPECT_TRUE(hash) << hash.message();
    EXPECT_EQ(hash->predict(input()).code(), code);
    return pool.changed_bytes();
  };
  EXPECT_EQ(std::ranges::count(changed_bytes(1000, Errc::ok), 0U), 0);
  EXPECT_EQ(std::ranges::count(changed_bytes(0, Errc::cancelled), 0U), 3) << "two recurrences and the attention";
}

TEST_F(LstmHashTest, PlansQueuedRequestsAsItPlansEach) {
  auto const hash = load({.top_k = 2});
  std::vector<TokenBatch> batches;
  for (std::size_t i = 0; i + 1 < batch_.sequence_offsets.size(); ++i) batches.push_back(alone(i));
  batches.emplace_back();  // without tokens
  std::vector<PredictorInput> inputs;
  for (std::size_t i = 0; i < batches.size(); ++i) {
    inputs.push_back({batches[i], i + 1 < batches.size() ? embeddings_of(i) : Matrix<float const>(nullptr, 0, kModel)});
  }
  auto const plans = hash.predict_all(inputs);
  ASSERT_TRUE(plans);
  ASSERT_EQ(plans->size(), batches.size());
  EXPECT_TRUE(plans->back().empty());
  for (std::size_t i = 0; i + 1 < batches.size(); ++i) {
    auto const plan = hash.predict(inputs[i]);
    ASSERT_TRUE(plan);
    for (std::size_t layer = 0; layer < kLayers; ++layer) {
      EXPECT_EQ((*plans)[i].layers[layer].experts, plan->layers[layer].experts);
      EXPECT_EQ((*plans)[i].layers[layer].expert_set, plan->layers[layer].expert_set);
    }
  }
}

/// Softmax of the reference logits of one token, in double.
std::vector<double> probabilities(std::vector<float> const& logits, std::int64_t row) {
  std::vector<double> p(7);
  double sum = 0;
  for (std::size_t e = 0; e < p.size(); ++e) sum += p[e] = std::exp(static_cast<double>(logits[row * 7 + e]));
  for (double& value : p) value /= sum;
  return p;
}

TEST_F(LstmHashTest, PlansTheLikeliestExpertsWithTheirSoftmax) {
  auto const logits = *load().logits(input());
  for (std::int64_t k : {1, 2, 3, 7}) {
    for (bool const renormalise : {false, true}) {
      auto const plan = load({.top_k = k, .renormalise = renormalise}).predict(input());
      ASSERT_TRUE(plan);
      EXPECT_EQ(plan->k, k);
      ASSERT_EQ(plan->layers.size(), static_cast<std::size_t>(kLayers));
      for (std::int64_t layer = 0; layer < kLayers; ++layer) {
        auto const& planned = plan->layers[static_cast<std::size_t>(layer)];
        std::vector<bool> used(kExperts);
        for (std::int64_t t = 0; t < batch_.tokens(); ++t) {
          auto const p = probabilities(logits, layer * batch_.tokens() + t);
          auto sorted = p;
          std::ranges::sort(sorted, std::greater<>());
          double sum = 0;
          for (std::int64_t r = 0; r < k; ++r) sum += sorted[static_cast<std::size_t>(r)];
          for (std::int64_t r = 0; r < k; ++r) {
            auto const at = static_cast<std::size_t>(t * k + r);
            std::uint16_t const expert = planned.experts[at];
            used[expert] = true;
            EXPECT_NEAR(p[expert], sorted[static_cast<std::size_t>(r)], 1e-6);
            double const alpha = sorted[static_cast<std::size_t>(r)] / (renormalise ? sum : 1);
            EXPECT_NEAR(static_cast<double>(to_float(planned.alphas[at])), alpha, 0x1p-11 * alpha + 1e-6);
          }
        }
        std::vector<ExpertId> expected;
        for (std::uint32_t e = 0; e < kExperts; ++e) {
          if (used[e]) expected.push_back({static_cast<std::uint32_t>(layer), e});
        }
        EXPECT_EQ(planned.expert_set, expected);
      }
    }
  }
}

TEST_F(LstmHashTest, PlansExpertsThatSomeTokenLikelyTakes) {
  auto const logits = *load().logits(input());
  std::vector<std::size_t> sizes;
  for (double const likely : {0.0, 0.3, 0.9, 1.0}) {
    auto const plan = load({.set = PlannedSet::likely, .likely = likely}).predict(input());
    ASSERT_TRUE(plan);
    std::size_t size = 0;
    for (std::int64_t layer = 0; layer < kLayers; ++layer) {
      std::vector<double> unused(kExperts, 1.0);
      for (std::int64_t t = 0; t < batch_.tokens(); ++t) {
        auto const p = probabilities(logits, layer * batch_.tokens() + t);
        for (std::size_t e = 0; e < unused.size(); ++e) unused[e] *= 1 - p[e];
      }
      auto const& set = plan->layers[static_cast<std::size_t>(layer)].expert_set;
      for (std::uint32_t e = 0; e < kExperts; ++e) {
        double const used = 1 - unused[e];
        if (std::fabs(used - likely) < 1e-6) continue;
        ExpertId const id{static_cast<std::uint32_t>(layer), e};
        EXPECT_EQ(std::ranges::binary_search(set, id), used >= likely) << used;
      }
      size += set.size();
    }
    sizes.push_back(size);
  }
  EXPECT_EQ(sizes.front(), static_cast<std::size_t>(kLayers * kExperts)) << "0 plans all";
  EXPECT_TRUE(std::ranges::is_sorted(sizes, std::greater<>()));
  EXPECT_LT(sizes.back(), sizes.front());
}

TEST_F(LstmHashTest, RefusesInputsThatDoNotFit) {
  auto const hash = load();
  EXPECT_EQ(hash.predict({batch_, {}}).error().code(), Errc::invalid_argument);
  EXPECT_EQ(hash.predict({batch_, {embeddings_.data(), batch_.tokens(), kModel - 1, kModel}}).error().code(),
            Errc::invalid_argument);
  TokenBatch broken = batch_;
  broken.sequence_offsets[1] = broken.sequence_offsets[2] + 1;
  EXPECT_EQ(hash.predict({broken, input().embeddings}).error().code(), Errc::invalid_argument);
  broken = batch_;
  broken.sequence_offsets.back() += 5;
  EXPECT_EQ(hash.predict({broken, input().embeddings}).error().code(), Errc::invalid_argument);
}

TEST_F(LstmHashTest, SaysWhenItsOutputIsNotFinite) {
  auto const hash = load();
  for (float const bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    embeddings_[static_cast<std::size_t>(kModel) * 8] = bad;
    auto const plan = hash.predict(input());
    ASSERT_FALSE(plan);
    EXPECT_NE(plan.error().message().find("not finite"), std::string::npos);
  }
}

TEST_F(LstmHashTest, NamesWhatIsWrongWithAFile) {
  expect_load_error(Errc::invalid_argument, "top-8 of 7", {.top_k = 8});
  expect_load_error(Errc::invalid_argument, "top-0", {.top_k = 0});
  expect_load_error(Errc::invalid_argument, "probability", {.likely = std::nan("")});
  source_.failing = "lstm.weight_hh_l1";
  expect_load_error(Errc::io, "bad sector");
  source_.failing.clear();
  source_.info("residual_fc.weight").shape = {24, 23};
  expect_load_error(Errc::corrupt, "'residual_fc.weight' is [24, 23]");
  source_.info("residual_fc.weight").shape = {24, 24};
  source_.info("lstm.bias_ih_l1").dtype_name = "I32";
  expect_load_error(Errc::unsupported, "lstm.bias_ih_l1");
  source_.info("lstm.bias_ih_l1").dtype_name = "F32";
  source_.remove("fc.3.bias");
  expect_load_error(Errc::not_found, "'fc.3.bias'");
  for (char const* const head : {"fc.1.weight", "fc.3.weight", "fc.11.weight"}) source_.remove(head);
  expect_load_error(Errc::not_found, "no head");
  source_.info("compression_fc.weight").shape = {480};
  expect_load_error(Errc::corrupt, "not a matrix");
  source_.remove("compression_fc.weight");
  expect_load_error(Errc::not_found, "'compression_fc.weight'");
}

TEST_F(LstmHashTest, TakesHeadsInTheOrderOfTheirBlocks) {
  auto const before = *load().logits(input());
  source_.rename("fc.3.weight", "fc.12.weight");  // 1, 3, 11 become 1, 11, 12; as text, 12 stays before 3
  source_.rename("fc.3.bias", "fc.12.bias");
  auto const after = *load().logits(input());
  auto const layer = batch_.tokens() * kExperts;
  EXPECT_TRUE(std::equal(before.begin(), before.begin() + layer, after.begin()));
  EXPECT_TRUE(std::equal(before.begin() + layer, before.begin() + 2 * layer, after.begin() + 2 * layer));
  EXPECT_TRUE(std::equal(before.begin() + 2 * layer, before.end(), after.begin() + layer));
}

// ---- sparsemax

/// The projection by definition: the nearest point of every face of the simplex, and the nearest of these.
std::vector<double> project(std::vector<float> const& row) {
  std::vector<double> best;
  double least = std::numeric_limits<double>::infinity();
  for (std::uint32_t face = 1; face < 1U << row.size(); ++face) {
    double sum = 0;
    int support = 0;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if ((face >> i & 1U) == 0) continue;
      sum += static_cast<double>(row[i]);
      ++support;
    }
    std::vector<double> point(row.size());
    double distance = 0;
    bool inside = true;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if ((face >> i & 1U) != 0) point[i] = static_cast<double>(row[i]) - (sum - 1) / support;
      inside = inside && point[i] >= 0;
      distance += std::pow(point[i] - static_cast<double>(row[i]), 2);
    }
    if (inside && distance < least) {
      least = distance;
      best = point;
    }
  }
  return best;
}

TEST(Sparsemax, IsTheProjectionOntoTheSimplex) {
  std::mt19937 random(17);
  for (int i = 0; i < 10000; ++i) {
    std::vector<float> row(1 + random() % 8);
    float const scale = std::array{0.1F, 1.0F, 10.0F}[i % 3];
    for (float& value : row) value = std::normal_distribution<float>(0, scale)(random);
    if (i % 5 == 0) row.back() = row.front();  // ties
    auto const expected = project(row);
    std::vector<float> scratch(row.size());
    sparsemax(SparsemaxRule::exact, row, scratch);
    for (std::size_t j = 0; j < row.size(); ++j) {
      ASSERT_NEAR(static_cast<double>(row[j]), expected[j], 1e-6 * std::max(1.0F, scale)) << i;
    }
  }
}

TEST(Sparsemax, ReleasedRuleDoublesWhatIsSubtracted) {
  std::vector<float> row{3.0F, 1.5F, 0.2F};
  std::vector<float> scratch(3);
  sparsemax(SparsemaxRule::released, row, scratch);
  EXPECT_NEAR(row[0], 0.8F, 1e-6F);
  EXPECT_NEAR(row[1], 0.2F, 1e-6F);
  EXPECT_EQ(row[2], 0.0F);
  row = {3.0F, 1.5F, 0.2F};
  sparsemax(SparsemaxRule::exact, row, scratch);
  EXPECT_EQ(row, (std::vector<float>{1, 0, 0}));
}

TEST(Sparsemax, ProjectsScoresOfAnySize) {
  std::vector<float> scratch(2);
  for (float const scale : {1e15F, 1e17F, 1e30F, 3e38F}) {
    std::vector<float> row{scale, 0.0F};
    sparsemax(SparsemaxRule::exact, row, scratch);
    EXPECT_EQ(row, (std::vector<float>{1, 0})) << scale;
    row = {scale, scale};
    sparsemax(SparsemaxRule::exact, row, scratch);
    EXPECT_EQ(row, (std::vector<float>{0.5F, 0.5F})) << scale;
    row = {-scale, scale};
    sparsemax(SparsemaxRule::exact, row, scratch);
    EXPECT_EQ(row, (std::vector<float>{0, 1})) << scale;
  }
}

TEST(Sparsemax, MakesNothingOfWhatIsNotFinite) {
  std::vector<float> row{1.0F, std::numeric_limits<float>::infinity(), 0.0F};
  std::vector<float> scratch(3);
  sparsemax(SparsemaxRule::exact, row, scratch);
  EXPECT_TRUE(std::ranges::all_of(row, [](float value) { return std::isnan(value); }));
}

}  // namespace
}  // namespace sida
