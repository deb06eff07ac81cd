#include "sida/layer/expert_ffn.hpp"

#include <cmath>
#include <limits>
#include <string>
#include <tuple>

#include <gtest/gtest.h>

#include "sida/layer/moe_layer.hpp"
#include "tests/layer/random_experts.hpp"

namespace sida {
namespace {

class ExpertFfn : public testing::TestWithParam<std::tuple<FfnKind, Dtype, CpuIsa>> {
 protected:
  FfnKind kind() const { return std::get<0>(GetParam()); }
  Dtype dtype() const { return std::get<1>(GetParam()); }
  CpuIsa isa() const { return std::get<2>(GetParam()); }
  std::mt19937 random_{7};
};

INSTANTIATE_TEST_SUITE_P(Fast, ExpertFfn,
                         testing::Combine(testing::Values(FfnKind::relu, FfnKind::gelu, FfnKind::swiglu),
                                          testing::Values(Dtype::f32, Dtype::f16, Dtype::bf16),
                                          testing::ValuesIn(runnable_cpu_isas().begin(), runnable_cpu_isas().end())),
                         [](auto const& test) {
                           return std::string(to_string(std::get<0>(test.param))) + "_" +
                                  std::string(to_string(std::get<1>(test.param))) + "_" +
                                  std::string(to_string(std::get<2>(test.param)));
                         });

double weight(ExpertLayout const& layout, std::byte const* record, std::size_t matrix, std::int64_t index) {
  std::byte const* const at = record + matrix + static_cast<std::size_t>(index) * size_bytes(layout.shape.dtype);
  auto const read = [at](auto value) {
    std::memcpy(&value, at, sizeof(value));
    return double{to_float(value)};
  };
  switch (layout.shape.dtype) {
    case Dtype::f32: return read(float{});
    case Dtype::f16: return read(fp16{});
    case Dtype::bf16: break;
  }
  return read(bf16{});
}

/// Sums of magnitudes through both products: rounding errors are at most (d_model + d_ff) eps times these, times 2.2
/// for the slope of the activation and for the two factors of swiglu. Where rows are rounded to bf16, x and the hidden
/// layer are each off by at most 2^-9 of themselves.
std::vector<double> magnitudes(ExpertLayout const& layout, std::byte const* record, std::span<float const> x) {
  std::int64_t const d_model = layout.shape.d_model, d_ff = layout.shape.d_ff;
  auto const hidden = [&](std::size_t matrix, std::int64_t f) {
    double sum = 0;
    for (std::int64_t i = 0; i < d_model; ++i) {
      sum += std::abs(weight(layout, record, matrix, f * d_model + i) * double{x[static_cast<std::size_t>(i)]});
    }
    return sum;
  };
  std::vector<double> result(static_cast<std::size_t>(d_model), 0.0);
  for (std::int64_t f = 0; f < d_ff; ++f) {
    double h = hidden(layout.in, f);
    if (layout.shape.kind == FfnKind::swiglu) h *= hidden(layout.gate, f);
    for (std::int64_t o = 0; o < d_model; ++o) {
      result[static_cast<std::size_t>(o)] += 2.2 * h * std::abs(weight(layout, record, layout.out, o * d_ff + f));
    }
  }
  return result;
}

TEST_P(ExpertFfn, AgreesWithTheReference) {
  struct {
    std::int64_t tokens, d_model, d_ff;
  } const shapes[] = {{1, 1, 1}, {1, 8, 16}, {2, 7, 13}, {3, 33, 70}, {5, 65, 31}, {17, 40, 129}, {4, 24, 1100}};
  for (auto const& [tokens, d_model, d_ff] : shapes) {
    ExpertLayout const layout = *ExpertLayout::of({kind(), dtype(), d_model, d_ff});
    std::vector<std::byte> const record = test::random_record(layout, random_);
    std::vector<float> const x = test::random_floats(tokens * d_model, random_);
    std::vector<float> y(x.size(), std::numeric_limits<float>::quiet_NaN()), reference = y;
    Matrix<float const> const xs(x.data(), tokens, d_model);

    std::vector<std::uint16_t> ids(static_cast<std::size_t>(tokens), 0);
    std::vector<float> weights(ids.size(), 1.0F);
    MoeShape const shape = {.experts = 1, .kind = kind(), .d_model = d_model, .d_ff = d_ff};
    test::AlignedBytes workspace(moe_workspace_bytes(shape, tokens));
    InlinePool pool;
    std::byte const* const records[] = {record.data()};
    Status const status =
        moe_over_arrays(shape, dtype(), isa(), records, xs, {{ids.data(), tokens, 1}, {weights.data(), tokens, 1}},
                        {y.data(), tokens, d_model}, {pool, workspace.bytes()});
    ASSERT_TRUE(status) << status.message();
    reference_expert_ffn(layout, record.data(), xs, {reference.data(), tokens, d_model});

    for (std::int64_t t = 0; t < tokens; ++t) {
      std::vector<double> const magnitude = magnitudes(layout, record.data(), xs.row(t));
      for (std::int64_t c = 0; c < d_model; ++c) {
        double const rounding = static_cast<double>(d_model + d_ff + 8) * std::numeric_limits<float>::epsilon() +
                                (PackedRows{isa(), dtype(), d_model}.is_needed() ? 2 * 0x1p-9 : 0);
        double const bound = rounding * magnitude[static_cast<std::size_t>(c)];
        auto const at = static_cast<std::size_t>(t * d_model + c);
        ASSERT_NEAR(y[at], reference[at], bound) << "token " << t << " column " << c << " d_ff " << d_ff;
      }
    }
  }
}

TEST(ReferenceExpertFfn, ComputesSmallCasesByHand) {
  // wi = [[1, 2], [-1, 0]], wo = [[1, 1], [0, 3]]
  float const relu[] = {1, 2, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 3};
  ExpertLayout const layout = *ExpertLayout::of({FfnKind::relu, Dtype::f32, 2, 2});
  ASSERT_EQ(layout.out, 64U);
  float const x[] = {3, 4, -5, 1};
  float y[4];
  reference_expert_ffn(layout, reinterpret_cast<std::byte const*>(relu), {x, 2, 2}, {y, 2, 2});
  EXPECT_EQ(y[0], 11);  // h = [11, -3] -> [11, 0]
  EXPECT_EQ(y[1], 0);
  EXPECT_EQ(y[2], 5);  // h = [-3, 5] -> [0, 5]
  EXPECT_EQ(y[3], 15);
}

TEST(ReferenceExpertFfn, GatesByTheFirstMatrix) {
  ExpertLayout const layout = *ExpertLayout::of({FfnKind::swiglu, Dtype::f32, 1, 1});
  std::vector<float> record(layout.size_bytes / 4 + 1, 0.0F);
  record[layout.gate / 4] = 2;
  record[layout.in / 4] = 3;
  record[layout.out / 4] = 5;
  float const x = 0.5F;
  float y = 0;
  reference_expert_ffn(layout, reinterpret_cast<std::byte const*>(record.data()), {&x, 1, 1}, {&y, 1, 1});
  EXPECT_FLOAT_EQ(y, static_cast<float>(1 / (1 + std::exp(-1.0)) * 1.5 * 5));
}

}  // namespace
}  // namespace sida
