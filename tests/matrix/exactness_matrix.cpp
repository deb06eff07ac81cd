// The contract of exact mode: the logits of one instruction set are the same bytes over every budget, policy, plan,
// source, read path and thread count.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <stop_token>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cli/classify_results.hpp"
#include "cli/run_batches.hpp"
#include "cli/run_hash.hpp"
#include "cli/run_input.hpp"
#include "cli/run_prefetch.hpp"
#include "cli/run_setup.hpp"
#include "sida/core/expert_layout.hpp"
#include "sida/detail/try.hpp"
#include "sida/io/safetensors.hpp"
#include "sida/model/switch_checkpoint.hpp"

namespace sida::cli {
namespace {

constexpr std::size_t kSentences = 16;
constexpr std::uint64_t kBatch = 4;

struct Case {
  bool packed;
  ReadPath read_path;
  std::string budget;  // as on the command line; "N slots" beside it
  PolicyKind policy;
  Prefetch prefetch;
  std::uint64_t threads;
};

std::string describe(Case const& c) {
  return std::string(c.packed ? "packed" : "safetensors") + ", " + std::string(to_string(c.read_path)) + ", budget " +
         c.budget + ", " + std::string(to_string(c.policy)) + ", prefetch " + to_string(c.prefetch) + ", " +
         std::to_string(c.threads) + " threads";
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (bool const packed : {false, true})
    for (auto const path : {ReadPath::pread, ReadPath::mmap})
      for (auto const* budget : {"1 slot", "2 slots", "5%", "20%", "50%", "100%"})
        for (auto const policy :
             {PolicyKind::fifo, PolicyKind::lru, PolicyKind::lfu, PolicyKind::lfru, PolicyKind::next_use})
          for (auto const prefetch : {Prefetch::none, Prefetch::oracle, Prefetch::hash, Prefetch::wrong})
            for (std::uint64_t const threads : {1U, 2U})
              cases.push_back({packed, path, budget, policy, prefetch, threads});
  return cases;
}

/// All cases, or as many as asked for, drawn with a fixed seed: fewer of instruction sets that are not the best here.
std::vector<Case> chosen_cases(CpuIsa isa) {
  auto cases = all_cases();
  std::size_t sample = SIDA_MATRIX_SAMPLE == 0 ? cases.size() : SIDA_MATRIX_SAMPLE;
  if (isa != best_cpu_isa()) sample = std::max<std::size_t>(sample / SIDA_MATRIX_FEWER, 4);
  std::shuffle(cases.begin(), cases.end(), std::mt19937(20261125 + static_cast<unsigned>(isa)));
  cases.resize(sample);
  return cases;
}

class LogitsObserver {
 public:
  LogitsObserver(InputRows const& input, ClassifyResults& results) : input_(&input), results_(&results) {}
  void started(TokenBatch const&) {}
  void routed(TokenBatch const&, std::uint32_t, Routing<>) {}
  Status finished(TokenBatch const& batch, SwitchEncoder::State& state) {
    auto const count = static_cast<std::size_t>(batch.sequences());
    Status status = results_->add(std::span(input_->rows).subspan(next_, count), state.logits());
    next_ += count;
    return status;
  }

 private:
  InputRows const* input_;
  ClassifyResults* results_;
  std::size_t next_ = 0;
};

/// Tensors of the same names and shapes as another source's, filled with random noise.
class NoiseTensors final : public TensorSource {
 public:
  explicit NoiseTensors(TensorSource const& shapes) : shapes_(shapes) {}
  std::string const& path() const noexcept override { return shapes_.path(); }
  std::span<TensorInfo const> tensors() const noexcept override { return shapes_.tensors(); }
  Status read(std::string_view name, std::uint64_t, std::span<std::byte> dst) const override {
    std::mt19937 random(static_cast<unsigned>(std::hash<std::string_view>()(name)));
    std::normal_distribution<float> normal(0.0F, 0.3F);
    for (std::size_t i = 0; i + sizeof(bf16) <= dst.size(); i += sizeof(bf16)) {
      bf16 const value = to_bf16(normal(random));
      std::memcpy(dst.data() + i, &value, sizeof value);
    }
    return {};
  }
  ReadStats read_stats() const noexcept override { return {}; }

 private:
  TensorSource const& shapes_;
};

/// A hash function whose weights are noise: it loads ahead whatever it likes.
Result<AnyPredictor> make_noise_predictor(ServedModel& served) {
  SIDA_TRY_ASSIGN(auto const real, open_safetensors(SIDA_REFERENCE_MODEL "/predictor.safetensors", ReadPath::pread));
  SIDA_TRY_ASSIGN(LstmHash hash, LstmHash::load(NoiseTensors(*real), {}, served.hash_pool, served.memory));
  return AnyPredictor(std::move(hash));
}

struct Outcome {
  std::string sha256;
  StoreStats stats;
};

Result<Outcome> classify(std::string const& model, Case const& c, CpuIsa isa, std::uint64_t slot_bytes) {
  std::string const budget = c.budget == "1 slot"    ? std::to_string(slot_bytes)
                             : c.budget == "2 slots" ? std::to_string(2 * slot_bytes)
                                                     : c.budget;
  ServeOptions options;
  options.model = model;
  SIDA_TRY_ASSIGN(options.budget, Budget::parse(budget));
  options.policy = c.policy;
  options.threads = c.threads;
  options.read_path = c.read_path;
  options.isa = isa;
  SIDA_TRY_ASSIGN(auto served, ServedModel::open(options));

  std::atomic<bool> const signalled{false};
  Session const session(std::stop_token(), signalled, false);
  InputOptions input_options;
  input_options.data = SIDA_REFERENCE_MODEL "/reviews.tsv";
  SIDA_TRY_ASSIGN(auto input, read_inputs(input_options, *served, session));
  input.rows.resize(std::min(input.rows.size(), kSentences));

  InputBatches const batches(input, *served, kBatch);
  Progress progress(false, "", "");
  PipelineOptions pipeline;
  AnyPredictor predictor;
  if (c.prefetch == Prefetch::hash) {
    SIDA_TRY_ASSIGN(predictor, make_noise_predictor(*served));
    pipeline.embed = make_embedder(*served);
  } else {
    SIDA_TRY_ASSIGN(predictor, make_predictor(c.prefetch, *served, batches, session, progress));
  }
  SIDA_TRY_ASSIGN(auto results, ClassifyResults::create("", served->checkpoint.config.num_labels));
  LogitsObserver observer(input, results);
  SIDA_TRY(run_batches(*served, predictor, batches, observer, pipeline, session));
  return Outcome{results.logits_sha256(), served->store->stats()};
}

class ExactnessMatrix : public testing::TestWithParam<CpuIsa> {};

TEST_P(ExactnessMatrix, GivesTheSameBytesHoweverTheExpertsAreServed) {
  std::string const folder = SIDA_REFERENCE_MODEL;
  std::string const packed =
      (std::filesystem::temp_directory_path() / ("sida_matrix_" + std::to_string(::getpid()) + ".sida")).string();
  auto const checkpoint = open_switch_checkpoint(folder, ReadPath::pread);
  ASSERT_TRUE(checkpoint) << checkpoint.message();
  ASSERT_TRUE(pack_switch_checkpoint(*checkpoint, packed));
  std::uint64_t const slot_bytes = slot_bytes_for(checkpoint->layout.size_bytes);

  Case const baseline{false, ReadPath::pread, "100%", PolicyKind::lru, Prefetch::none, 1};
  auto const expected = classify(folder, baseline, GetParam(), slot_bytes);
  ASSERT_TRUE(expected) << expected.message();
  std::size_t evicting = 0;
  auto const cases = chosen_cases(GetParam());
  for (Case const& c : cases) {
    auto const outcome = classify(c.packed ? packed : folder, c, GetParam(), slot_bytes);
    EXPECT_TRUE(outcome) << describe(c) << ": " << outcome.message();
    if (!outcome) continue;
    EXPECT_EQ(outcome->sha256, expected->sha256) << describe(c);
    if (outcome->stats.evictions > 0) ++evicting;
  }
  bool const are_typical = cases.size() >= 24;  // of the matrix; a few may all have room
  EXPECT_GT(evicting, are_typical ? cases.size() / 2 : 0) << "the budgets are too large to mean anything";
  std::filesystem::remove(packed);
}

INSTANTIATE_TEST_SUITE_P(Isas, ExactnessMatrix,
                         testing::ValuesIn(runnable_cpu_isas().begin(), runnable_cpu_isas().end()),
                         [](auto const& isa) { return std::string(to_string(isa.param)); });

}  // namespace
}  // namespace sida::cli
