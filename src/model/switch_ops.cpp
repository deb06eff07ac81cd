#include "model/switch_ops.hpp"

#include <cmath>
#include <cstring>

namespace sida::inline v0::model_detail {
namespace {

// Rows that one task normalises or adds: some 100 KB, so that a task outweighs its start.
constexpr std::int64_t kRowsPerTask = 32;

/// Calls `row_range(first, last)` for chunks of [0, rows) on the pool.
template <class F>
void for_row_chunks(ThreadPool& pool, std::int64_t rows, F const& row_range) {
  auto const task = [&](std::size_t number) {
    std::int64_t const first = static_cast<std::int64_t>(number) * kRowsPerTask;
    row_range(first, std::min(first + kRowsPerTask, rows));
  };
  pool.run(static_cast<std::size_t>(ceil_div(rows, kRowsPerTask)), task);
}

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

void add_to(Matrix<float> residual, LinearBlock const& block) noexcept {
  for (std::int64_t r = 0; r < block.y.rows; ++r) {
    float* const to = residual.data + (block.first_row + r) * residual.stride + block.first_col;
    auto const from = block.y.row(r);
    for (std::size_t c = 0; c < from.size(); ++c) to[c] += from[c];
  }
}

void apply_tanh(LinearBlock const& block) noexcept {
  for (std::int64_t r = 0; r < block.y.rows; ++r) {
    for (float& value : block.y.row(r)) value = std::tanh(value);
  }
}

void rms_norm(ThreadPool& pool, Matrix<float const> x, float const* weight, float epsilon, Matrix<float> y) {
  for_row_chunks(pool, x.rows, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t r = first; r < last; ++r) {
      auto const from = x.row(r);
      auto const to = y.row(r);
      auto const variance = static_cast<float>(sum_squares(from) / static_cast<double>(from.size()));
      float const scale = 1.0F / std::sqrt(variance + epsilon);
      for (std::size_t c = 0; c < from.size(); ++c) to[c] = weight[c] * (from[c] * scale);
    }
  });
}

void add_rows(ThreadPool& pool, Matrix<float const> x, Matrix<float> y) {
  for_row_chunks(pool, x.rows, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t r = first; r < last; ++r) {
      auto const from = x.row(r);
      auto const to = y.row(r);
      for (std::size_t c = 0; c < from.size(); ++c) to[c] += from[c];
    }
  });
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
