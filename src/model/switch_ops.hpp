#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "model/switch_weights.hpp"
#include "sida/core/matrix.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/kernels/cpu.hpp"

/// The dense arithmetic of a Switch encoder. Internal. Each output element is computed by one task in an order that
/// does not depend on how the tasks are shared out, so that bytes don't depend on threads.
namespace sida::inline v0::model_detail {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) noexcept { return (a + b - 1) / b; }

/// One linear layer over the rows of an input that several may share: y = x w^T.
struct LinearJob {
  WeightMatrix w;   // [out, in]
  Matrix<float> y;  // [tokens, out]
};

/// A block of outputs of one linear layer: all that one task computes.
struct LinearBlock {
  Matrix<float> y;  // the block, within the job's y
  std::int64_t first_row = 0;
  std::int64_t first_col = 0;
};

// A block's weights, and its rows of x, fit a core's own cache.
inline constexpr std::int64_t kBlockCols = 64;
inline constexpr std::int64_t kBlockRows = 64;

inline std::int64_t linear_tasks(LinearJob const& job) noexcept {
  return ceil_div(job.y.rows, kBlockRows) * ceil_div(job.y.cols, kBlockCols);
}

/// Task `task` of `job`; tasks that share columns, and so weights, are neighbours. x: [tokens, in].
LinearBlock run_linear_task(CpuIsa isa, Matrix<float const> x, LinearJob const& job, std::int64_t task) noexcept;

/// Runs all jobs over one x, [tokens, in]; `after(block)` is called on each block once it is there, by its task.
template <class After>
void run_linear(ThreadPool& pool, CpuIsa isa, Matrix<float const> x, std::span<LinearJob const> jobs, After after) {
  std::int64_t total = 0;
  for (auto const& job : jobs) total += linear_tasks(job);
  auto const task = [&](std::size_t number) {
    auto rest = static_cast<std::int64_t>(number);
    for (auto const& job : jobs) {
      if (rest < linear_tasks(job)) {
        after(run_linear_task(isa, x, job, rest));
        return;
      }
      rest -= linear_tasks(job);
    }
  };
  pool.run(static_cast<std::size_t>(total), task);
}

inline void run_linear(ThreadPool& pool, CpuIsa isa, Matrix<float const> x, std::span<LinearJob const> jobs) {
  run_linear(pool, isa, x, jobs, [](LinearBlock const&) {});
}

/// What follows a linear layer: applied to one block.
void activate(FfnKind kind, LinearBlock const& block) noexcept;
/// residual[tokens, out] += block
void add_to(Matrix<float> residual, LinearBlock const& block) noexcept;
/// block += bias[out]
void add_bias(float const* bias, LinearBlock const& block) noexcept;
void apply_tanh(LinearBlock const& block) noexcept;

/// y = x / rms(x) * weight, row by row; the mean of squares in double. x, y: [tokens, d_model].
void rms_norm(ThreadPool& pool, Matrix<float const> x, float const* weight, float epsilon, Matrix<float> y);

/// y += x. x, y: [tokens, d_model].
void add_rows(ThreadPool& pool, Matrix<float const> x, Matrix<float> y);

/// out[s] = mean of x's rows from offsets[s] up to offsets[s + 1]. x: [tokens, d_model], out: [sequences, d_model].
void mean_rows(ThreadPool& pool, Matrix<float const> x, std::span<std::uint32_t const> offsets, Matrix<float> out);

/// Widens row `row` of `weight` into `out`, [cols].
void widen_row(WeightMatrix const& weight, std::int64_t row, std::span<float> out) noexcept;

/// Self-attention within each sequence, T5's way: scores are not scaled, and a bias by relative position is added.
struct AttentionArgs {
  CpuIsa isa = CpuIsa::portable;
  Matrix<float const> q, k, v;             // [tokens, heads * d_kv]
  Matrix<float> context;                   // [tokens, heads * d_kv]
  std::span<std::uint32_t const> offsets;  // [sequences + 1]
  float const* position_bias = nullptr;    // [heads, 2 * max_distance + 1], see SwitchWeights
  std::int64_t heads = 0;
  std::int64_t d_kv = 0;
  std::int64_t max_distance = 0;
  std::int64_t longest = 0;  // tokens of the longest sequence
};

/// Floats of scratch for `lanes` tasks at once.
std::int64_t attention_scratch(std::int64_t lanes, std::int64_t d_kv, std::int64_t longest) noexcept;
/// How many tasks `run_attention` uses.
std::int64_t attention_lanes(ThreadPool& pool, AttentionArgs const& args) noexcept;
/// scratch: attention_scratch(attention_lanes(pool, args), …) floats, aligned to 64 bytes.
void run_attention(ThreadPool& pool, AttentionArgs const& args, float* scratch);

}  // namespace sida::inline v0::model_detail
