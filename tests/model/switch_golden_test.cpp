// The encoder against transformers, on the checkpoints of tests/goldens/switch.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "sida/io/safetensors.hpp"
#include "tests/io/temp_dir.hpp"
#include "tests/model/encoder_fixture.hpp"

namespace sida::testing {
namespace {

struct Tolerance {
  double error;        // of the largest reference value
  float clear_margin;  // below it two programs may choose another expert
};
// What float32 may lose over some blocks, with room.
constexpr Tolerance kFloats = {1e-4, 1e-5F};
// Where inputs of products are rounded to bf16, by 2^-9 each time.
constexpr Tolerance kRounded = {3e-2, 2e-2F};

char const* const kNames[] = {
    "plain",   "two_experts_tight", "seventeen_experts",      "step_one",        "derived_step", "derived_step_zero",
    "buckets", "epsilon",           "pad_id_in_text",         "torch_dtype_key", "full_model",   "full_model_aliased",
    "sharded", "bfloat16",          "float16_router_float32",
};

/// What transformers computed; see tests/goldens/README.md.
struct Golden {
  std::string folder;
  std::vector<std::int32_t> ids;      // [tokens]
  std::vector<std::int32_t> lengths;  // [sequences]
  std::vector<std::int32_t> batches;  // [batches]
  std::vector<float> hidden;          // [tokens, d_model]
  std::vector<float> logits;          // [sequences, labels]
  std::vector<std::int32_t> experts;  // [tokens, moe_layers]
  std::vector<std::uint8_t> kept;     // [tokens, moe_layers]
  std::vector<float> margin;          // [tokens, moe_layers]

  explicit Golden(std::string const& name) : folder(std::string(SIDA_TEST_DATA) + "/goldens/switch/" + name) {
    auto const source = value_of(open_safetensors(folder + "/golden.safetensors", ReadPath::pread));
    read(*source, "ids", ids);
    read(*source, "lengths", lengths);
    read(*source, "batches", batches);
    read(*source, "hidden", hidden);
    read(*source, "logits", logits);
    read(*source, "experts", experts);
    read(*source, "kept", kept);
    read(*source, "margin", margin);
  }

 private:
  template <class T>
  static void read(TensorSource const& source, std::string const& name, std::vector<T>& out) {
    TensorInfo const* const tensor = source.find(name);
    if (tensor == nullptr) throw std::runtime_error("golden without " + name);
    out.resize(tensor->size_bytes / sizeof(T));
    must(source.read(name, 0, std::as_writable_bytes(std::span(out))));
  }
};

/// Runs all sequences in batches of these sizes and compares. Token and sequence numbers count over all batches.
class Comparison {
 public:
  Comparison(Golden const& golden, LoadedEncoder& loaded, Tolerance const& tolerance = kFloats)
      : golden_(golden), loaded_(loaded), tolerance_(tolerance) {}

  void run(std::vector<std::int32_t> const& batches) {
    for (std::int32_t const sequences : batches) run_one(sequences);
    ASSERT_EQ(sequence_, golden_.lengths.size());
    ASSERT_EQ(token_, golden_.ids.size());
    EXPECT_LE(hidden_error_, tolerance_.error * largest(golden_.hidden));
    EXPECT_LE(logits_error_, tolerance_.error * largest(golden_.logits));
    ::testing::Test::RecordProperty("hidden_error_percent", in_percent(hidden_error_, golden_.hidden));
    ::testing::Test::RecordProperty("logits_error_percent", in_percent(logits_error_, golden_.logits));
  }

 private:
  static std::string in_percent(double error, std::vector<float> const& reference) {
    return std::to_string(100 * error / largest(reference));
  }
  static double largest(std::vector<float> const& values) {
    double most = 0;
    for (float const value : values) most = std::max(most, std::fabs(static_cast<double>(value)));
    return most;
  }

  void run_one(std::int32_t sequences) {
    SwitchEncoder& encoder = *loaded_.encoder;
    TokenBatch batch;
    std::size_t first = token_;
    for (std::int32_t i = 0; i < sequences; ++i) {
      auto const length = static_cast<std::size_t>(golden_.lengths.at(sequence_ + static_cast<std::size_t>(i)));
      batch.append(std::span(golden_.ids).subspan(first, length));
      first += length;
    }
    must(encoder.begin(batch, state_));
    for (std::uint32_t layer = 0; layer < encoder.moe_layers(); ++layer) {
      must(encoder.run_to(layer, state_, pool_));
      must(encoder.route(layer, state_, pool_));
      compare_routing(layer);
      must(encoder.run_moe(layer, state_, pool_, {}));
    }
    must(encoder.finish(state_, pool_));
    auto const d_model = static_cast<std::size_t>(encoder.config().d_model);
    auto const labels = static_cast<std::size_t>(encoder.config().num_labels);
    hidden_error_ = std::max(hidden_error_, distance(state_.hidden(), &golden_.hidden.at(token_ * d_model)));
    logits_error_ = std::max(logits_error_, distance(state_.logits(), &golden_.logits.at(sequence_ * labels)));
    token_ = first;
    sequence_ += static_cast<std::size_t>(sequences);
  }

  void compare_routing(std::uint32_t layer) {
    auto const routing = loaded_.encoder->routing(state_);
    for (std::int64_t t = 0; t < routing.tokens(); ++t) {
      std::size_t const at = (token_ + static_cast<std::size_t>(t)) * loaded_.encoder->moe_layers() + layer;
      if (golden_.margin.at(at) <= tolerance_.clear_margin) continue;
      int const expected = golden_.kept[at] != 0 ? golden_.experts[at] : kNoExpert;
      ASSERT_EQ(routing.experts(t, 0), expected)
          << "token " << token_ + static_cast<std::size_t>(t) << " layer " << layer;
    }
  }

  static double distance(Matrix<float const> matrix, float const* reference) {
    double most = 0;
    for (std::int64_t r = 0; r < matrix.rows; ++r) {
      for (float const value : matrix.row(r)) {
        double const away = std::fabs(static_cast<double>(value) - static_cast<double>(*reference++));
        most = std::isnan(away) ? INFINITY : std::max(most, away);
      }
    }
    return most;
  }

  Golden const& golden_;
  LoadedEncoder& loaded_;
  Tolerance tolerance_;
  InlinePool pool_;
  SwitchEncoder::State state_;
  std::size_t token_ = 0;
  std::size_t sequence_ = 0;
  double hidden_error_ = 0;
  double logits_error_ = 0;
};

/// The best instruction set that rounds nothing.
SwitchOptions unrounded() {
  SwitchOptions options;
  options.isa = std::min(best_cpu_isa(), CpuIsa::avx512);
  return options;
}

class SwitchGolden : public ::testing::TestWithParam<char const*> {};

TEST_P(SwitchGolden, AgreesInTheBatchesOfTheReference) {
  Golden const golden(GetParam());
  LoadedEncoder loaded(golden.folder, 0, unrounded());
  Comparison(golden, loaded).run(golden.batches);
}

TEST_P(SwitchGolden, AgreesSequenceBySequence) {
  Golden const golden(GetParam());
  LoadedEncoder loaded(golden.folder, 0, unrounded());
  Comparison(golden, loaded).run(std::vector<std::int32_t>(golden.lengths.size(), 1));
}

TEST_P(SwitchGolden, AgreesOnEveryInstructionSetWithOneSlot) {
  Golden const golden(GetParam());
  for (CpuIsa const isa : runnable_cpu_isas()) {
    SCOPED_TRACE(to_string(isa));
    SwitchOptions options;
    options.isa = isa;
    LoadedEncoder loaded(golden.folder, 1, options);
    bool const rounds = PackedRows{isa, loaded.checkpoint.layout.shape.dtype, 1}.is_needed();
    Comparison(golden, loaded, rounds ? kRounded : kFloats).run(golden.batches);
  }
}

TEST_P(SwitchGolden, AgreesFromAPackedContainer) {
  Golden const golden(GetParam());
  TempDir const folder;
  auto const checkpoint = value_of(open_switch_checkpoint(golden.folder, ReadPath::mmap));
  must(pack_switch_checkpoint(checkpoint, folder / "model.sida"));
  LoadedEncoder loaded(folder / "model.sida", 0, unrounded());
  EXPECT_EQ(loaded.checkpoint.config, checkpoint.config);
  Comparison(golden, loaded).run(golden.batches);
}

INSTANTIATE_TEST_SUITE_P(All, SwitchGolden, ::testing::ValuesIn(kNames),
                         [](auto const& name) { return std::string(name.param); });

}  // namespace
}  // namespace sida::testing
