// The encoder against a straight double-precision one, on random checkpoints.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/model/encoder_fixture.hpp"
#include "tests/model/random_checkpoint.hpp"
#include "tests/model/reference_encoder.hpp"

namespace sida::testing {
namespace {

// Float32 against double over five blocks, relative to the largest value.
constexpr double kTolerance = 2e-5;
// The same where inputs of products are rounded to bf16, and the margin below which that may change the routing.
constexpr double kRoundedTolerance = 3e-2;
constexpr double kRoundedMargin = 3e-2;

struct ReferenceCase {
  char const* name;
  CapacityRule rule = CapacityRule::hf;
  FfnKind activation = FfnKind::relu;
  Dtype dense = Dtype::f32;
  Dtype experts = Dtype::f32;
  std::uint32_t step = 2;
  std::int64_t capacity = 3;
  friend std::ostream& operator<<(std::ostream& out, ReferenceCase const& c) { return out << c.name; }
};

void expect_near(Matrix<float const> matrix, std::int64_t first, ReferenceEncoder::Rows const& reference,
                 double tolerance) {
  double largest = 0;
  double error = 0;
  for (std::size_t r = 0; r < reference.size(); ++r) {
    auto const row = matrix.row(first + static_cast<std::int64_t>(r));
    ASSERT_EQ(row.size(), reference[r].size());
    for (std::size_t c = 0; c < row.size(); ++c) {
      largest = std::max(largest, std::fabs(reference[r][c]));
      error = std::max(error, std::fabs(reference[r][c] - static_cast<double>(row[c])));
      ASSERT_FALSE(std::isnan(row[c]));
    }
  }
  EXPECT_LE(error, tolerance * largest);
}

class SwitchReference : public ::testing::TestWithParam<ReferenceCase> {
 protected:
  void SetUp() override {
    config_ = small_config();
    config_.activation = GetParam().activation;
    config_.encoder_sparse_step = GetParam().step;
    config_.expert_capacity = GetParam().capacity;
    tensors_ = random_tensors(config_, GetParam().dense, GetParam().experts);
    write_checkpoint(folder_, config_, tensors_);
  }

  SwitchConfig config_;
  NamedTensors tensors_;
  TempDir folder_;
};

TEST_P(SwitchReference, AgreesOnEveryInstructionSet) {
  ReferenceEncoder const reference(config_, tensors_, GetParam().rule);
  TokenBatch const batch = random_batch({1, 9, 70, 2, 33}, config_.vocab_size, 5);
  std::vector<ReferenceEncoder::Output> expected;
  for (std::size_t s = 0; s + 1 < batch.sequence_offsets.size(); ++s) {
    std::uint32_t const first = batch.sequence_offsets[s];
    expected.push_back(reference.run(std::span(batch.ids).subspan(first, batch.sequence_offsets[s + 1] - first)));
    ASSERT_GT(expected.back().least_margin, 1e-5) << "choose another seed: the routing is not clear";
  }
  for (CpuIsa const isa : runnable_cpu_isas()) {
    SCOPED_TRACE(to_string(isa));
    SwitchOptions options;
    options.capacity_rule = GetParam().rule;
    options.isa = isa;
    LoadedEncoder loaded(folder_.path(), 3, options);
    InlinePool pool;
    SwitchEncoder::State state;
    run_batch(*loaded.encoder, batch, state, pool);
    bool const rounds = PackedRows{isa, GetParam().experts, 1}.is_needed();
    double const tolerance = rounds ? kRoundedTolerance : kTolerance;
    std::size_t compared = 0;
    for (std::size_t s = 0; s < expected.size(); ++s) {
      SCOPED_TRACE("sequence " + std::to_string(s));
      if (rounds && expected[s].least_margin < kRoundedMargin) continue;
      ++compared;
      expect_near(state.hidden(), batch.sequence_offsets[s], expected[s].hidden, tolerance);
      expect_near(state.logits(), static_cast<std::int64_t>(s), {expected[s].logits}, tolerance);
    }
    EXPECT_GE(compared, 2U);
  }
}

TEST_P(SwitchReference, RoutesTheSame) {
  ReferenceEncoder const reference(config_, tensors_, GetParam().rule);
  TokenBatch const batch = random_batch({40}, config_.vocab_size, 6);
  auto const expected = reference.run(batch.ids);
  ASSERT_GT(expected.least_margin, 1e-5) << "choose another seed: the routing is not clear";
  SwitchOptions options;
  options.capacity_rule = GetParam().rule;
  LoadedEncoder loaded(folder_.path(), 0, options);
  InlinePool pool;
  SwitchEncoder::State state;
  must(loaded.encoder->begin(batch, state));
  for (std::uint32_t layer = 0; layer < loaded.encoder->moe_layers(); ++layer) {
    must(loaded.encoder->run_to(layer, state, pool));
    must(loaded.encoder->route(layer, state, pool));
    auto const routing = loaded.encoder->routing(state);
    for (std::int64_t t = 0; t < routing.tokens(); ++t) {
      int const choice = routing.experts(t, 0) == kNoExpert ? -1 : routing.experts(t, 0);
      ASSERT_EQ(choice, expected.routed[layer][static_cast<std::size_t>(t)]) << "layer " << layer << " token " << t;
    }
    must(loaded.encoder->run_moe(layer, state, pool, {}));
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, SwitchReference,
                         ::testing::Values(ReferenceCase{"Plain"}, ReferenceCase{"NoCapacity", CapacityRule::none},
                                           ReferenceCase{"PassThrough", CapacityRule::hf_4_32},
                                           ReferenceCase{.name = "Gelu", .activation = FfnKind::gelu},
                                           ReferenceCase{.name = "EveryBlock", .step = 1},
                                           ReferenceCase{.name = "StepFour", .step = 4},
                                           ReferenceCase{.name = "NoRoom", .capacity = 0},
                                           ReferenceCase{.name = "Bf16", .dense = Dtype::bf16, .experts = Dtype::bf16},
                                           ReferenceCase{.name = "Fp16", .dense = Dtype::f16, .experts = Dtype::f16},
                                           ReferenceCase{.name = "Bf16Experts", .experts = Dtype::bf16}),
                         [](auto const& c) { return std::string(c.param.name); });

}  // namespace
}  // namespace sida::testing
