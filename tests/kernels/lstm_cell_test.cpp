#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "sida/kernels/cpu.hpp"

namespace sida {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

/// One step's arguments, and what double arithmetic makes of them.
struct Step {
  std::int64_t hidden;
  std::vector<float> from_input, from_state, cell, state;

  explicit Step(std::int64_t size)
      : hidden(size),
        from_input(static_cast<std::size_t>(4 * size)),
        from_state(from_input.size()),
        cell(static_cast<std::size_t>(size)),
        state(cell.size(), kNan) {}

  void run(CpuIsa isa) {
    lstm_cell(isa, {.from_input = from_input.data(),
                    .from_state = from_state.data(),
                    .cell = cell.data(),
                    .state = state.data(),
                    .hidden = hidden});
  }
  double gate(std::size_t which, std::size_t j) const {
    std::size_t const at = which * cell.size() + j;
    return static_cast<double>(from_input[at]) + static_cast<double>(from_state[at]);
  }
  static double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
  double true_cell(std::size_t j) const {
    return sigmoid(gate(1, j)) * static_cast<double>(cell[j]) + sigmoid(gate(0, j)) * std::tanh(gate(2, j));
  }
  double true_state(std::size_t j) const { return sigmoid(gate(3, j)) * std::tanh(true_cell(j)); }
};

class LstmCellTest : public testing::TestWithParam<CpuIsa> {};

TEST_P(LstmCellTest, IsTheTextbookStep) {
  std::mt19937 random(3);
  // Sizes about the vector lengths; gates from tiny, where tanh(x) is x, to saturated.
  for (std::int64_t const hidden : {1, 3, 7, 8, 9, 16, 31, 128, 257}) {
    for (float const scale : {1e-4F, 0.1F, 1.0F, 10.0F, 200.0F}) {
      std::normal_distribution<float> normal(0.0F, scale);
      Step step(hidden);
      for (auto* const values : {&step.from_input, &step.from_state, &step.cell}) {
        for (float& value : *values) value = normal(random);
      }
      Step const before = step;
      step.run(GetParam());
      for (std::size_t j = 0; j < step.cell.size(); ++j) {
        double const cell = before.true_cell(j);
        EXPECT_NEAR(step.cell[j], cell, 1e-6 * (1 + std::abs(cell))) << hidden << " " << scale << " " << j;
        EXPECT_NEAR(step.state[j], before.true_state(j), 1e-6) << hidden << " " << scale << " " << j;
      }
    }
  }
}

TEST_P(LstmCellTest, SaturatesAtInfinityAndKeepsNan) {
  Step step(16);
  step.from_input.assign(step.from_input.size(), kInf);
  step.cell.assign(step.cell.size(), 0.5F);
  step.from_input[16 + 1] = -kInf;  // the forget gate of unit 1
  for (std::size_t gate = 0; gate < 4; ++gate) step.from_input[16 * gate + 2 + gate] = kNan;
  step.run(GetParam());
  EXPECT_FLOAT_EQ(step.cell[0], 1.5F);
  EXPECT_FLOAT_EQ(step.cell[1], 1.0F);
  for (std::size_t unit = 2; unit < 6; ++unit) EXPECT_TRUE(std::isnan(step.state[unit])) << unit;
  EXPECT_FLOAT_EQ(step.state[15], std::tanh(1.5F));
}

INSTANTIATE_TEST_SUITE_P(Isas, LstmCellTest, testing::ValuesIn(runnable_cpu_isas().begin(), runnable_cpu_isas().end()),
                         [](auto const& isa) { return std::string(to_string(isa.param)); });

}  // namespace
}  // namespace sida
