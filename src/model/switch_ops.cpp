#include "model/switch_ops.hpp"

#include <cmath>
#include <cstring>

namespace sida::inline v0::model_detail {
namespace {

/// Several sums side by side: one alone waits for each of its additions.
double sum_squares(std::span<float const> values) noexcept {
  constexpr std::size_t kSums = 8;
  double sums[kSums] = {};
  std::size_t i = 0;
  for (; i + kSums <= values.size(); i += kSums) {
    for (std::size_t s = 0; s < kSums; ++s) {
      auto const value = static_cast<double>(values[i + s]);
      sums[s] += value * value;
    }
  }
  for (; i < values.size(); ++i) sums[0] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

float gelu(float x) noexcept {
  constexpr float kSqrtHalf = 0.70710678118654752440F;
  return 0.5F * x * (1.0F + std::erf(x * kSqrtHalf));
}

}  // namespace

void activate(FfnKind kind, LinearBlock const& block) noexcept {
  for (std::int64_t r = 0; r < block.y.rows; ++r) {
    for (float& value : block.y.row(r)) value = kind == FfnKind::gelu ? gelu(value) : std::max(value, 0.0F);
  }
}

void apply_tanh(LinearBlock const& block) noexcept {
  for (std::int64_t r = 0; r < block.y.rows; ++r) {
    for (float& value : block.y.row(r)) value = std::tanh(value);
  }
}

void rms_norm(Matrix<float const> x, float const* weight, float epsilon, Matrix<float> y) noexcept {
  for (std::int64_t r = 0; r < x.rows; ++r) {
    auto const from = x.row(r);
    auto const to = y.row(r);
    auto const variance = static_cast<float>(sum_squares(from) / static_cast<double>(from.size()));
    float const scale = 1.0F / std::sqrt(variance + epsilon);
    for (std::size_t c = 0; c < from.size(); ++c) to[c] = weight[c] * (from[c] * scale);
  }
}

void add_rows(ThreadPool& pool, Matrix<float const> x, Matrix<float> y) {
  constexpr std::int64_t kRows = 16;  // some 50 KB, so that a task outweighs its start
  auto const task = [&](std::size_t number) {
    std::int64_t const first = static_cast<std::int64_t>(number) * kRows;
    for (std::int64_t r = first; r < std::min(first + kRows, x.rows); ++r) {
      auto const from = x.row(r);
      auto const to = y.row(r);
      for (std::size_t c = 0; c < from.size(); ++c) to[c] += from[c];
    }
  };
  pool.run(static_cast<std::size_t>(ceil_div(x.rows, kRows)), task);
}

void mean_rows(ThreadPool& pool, Matrix<float const> x, std::span<std::uint32_t const> offsets, Matrix<float> out) {
  auto const task = [&](std::size_t sequence) {
    std::int64_t const first = offsets[sequence];
    std::int64_t const last = offsets[sequence + 1];
    auto const mean = out.row(static_cast<std::int64_t>(sequence));
    for (std::size_t c = 0; c < mean.size(); ++c) {
      double sum = 0;
      for (std::int64_t r = first; r < last; ++r) sum += static_cast<double>(x(r, static_cast<std::int64_t>(c)));
      mean[c] = static_cast<float>(sum / static_cast<double>(last - first));
    }
  };
  pool.run(offsets.size() - 1, task);
}

}  // namespace sida::inline v0::model_detail
