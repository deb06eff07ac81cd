#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stop_token>

#include "dense/linear.hpp"
#include "model/switch_weights.hpp"
#include "sida/core/matrix.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/kernels/cpu.hpp"

/// The dense arithmetic of a Switch encoder. Internal. Each output element is computed by one task in an order that
/// does not depend on how the tasks are shared out, so that bytes don't depend on threads.
namespace sida::inline v0::model_detail {

using dense::ceil_div;
using dense::LinearBlock;
using dense::LinearJob;
using dense::LinearRows;
using dense::make_rows;
using dense::pack_rows;
using dense::run_linear;
using dense::run_linear_relu_pack;
using dense::widen_row;

/// What follows a linear layer: applied to one block.
void activate(FfnKind kind, LinearBlock const& block) noexcept;
void apply_tanh(LinearBlock const& block) noexcept;

/// y = x / rms(x) * weight, row by row; the mean of squares in double. x, y: [tokens, d_model].
void rms_norm(Matrix<float const> x, float const* weight, float epsilon, Matrix<float> y) noexcept;

/// y += x. x, y: [tokens, d_model].
void add_rows(ThreadPool& pool, Matrix<float const> x, Matrix<float> y);

/// out[s] = mean of x's rows from offsets[s] up to offsets[s + 1]. x: [tokens, d_model], out: [sequences, d_model].
void mean_rows(ThreadPool& pool, Matrix<float const> x, std::span<std::uint32_t const> offsets, Matrix<float> out);

/// Self-attention within each sequence, T5's way: scores are not scaled, and a bias by relative position is added.
struct AttentionArgs {
  CpuIsa isa = CpuIsa::portable;
  Matrix<float const> q, k, v;                     // [tokens, heads * d_kv]
  Matrix<float> context;                           // [tokens, heads * d_kv]
  std::span<std::uint32_t const> offsets;          // [sequences + 1]
  float const* position_bias = nullptr;            // [buckets, heads]
  std::int32_t const* position_buckets = nullptr;  // [max_distance + 1], see SwitchWeights
  std::int64_t heads = 0;
  std::int64_t d_kv = 0;
  std::int64_t buckets = 0;       // half of them for keys after their query
  std::int64_t max_distance = 0;  // keys further away share a bucket
  std::int64_t longest = 0;       // tokens of the longest sequence
  std::stop_token stop;           // once requested, the rest is left out
};

/// Floats of scratch for `lanes` tasks at once.
std::int64_t attention_scratch(std::int64_t lanes, std::int64_t d_kv, std::int64_t longest) noexcept;
/// How many tasks `run_attention` uses.
std::int64_t attention_lanes(ThreadPool& pool, AttentionArgs const& args) noexcept;
/// scratch: attention_scratch(attention_lanes(pool, args), …) floats, aligned to 64 bytes.
void run_attention(ThreadPool& pool, AttentionArgs const& args, float* scratch);

}  // namespace sida::inline v0::model_detail
