#pragma once

#include <cstdint>
#include <cuda_runtime.h>
#include <span>

#include "sida/core/dtype.hpp"
#include "sida/core/expert_layout.hpp"
#include "sida/route/router.hpp"

/// sida's CUDA kernels, as host code launches them. Each call enqueues on `stream`, waits for nothing and allocates
/// nothing; all pointers are of device memory, row-major, and where a type is not written it is `dtype`. Bytes of a
/// result row depend on its own operands and on the shapes alone: no atomics, sums in a fixed order.
namespace sida::inline v0::cuda::kernels {

/// y = x w^T, or y += x w^T, for any k and alignment. x: [m, k], w: [n, k], y: float [m, n].
cudaError_t gemm_any(cudaStream_t stream, Dtype dtype, void const* x, std::int64_t x_stride, void const* w, float* y,
                     std::int64_t y_stride, std::int64_t m, std::int64_t n, std::int64_t k, bool adds);

/// Some rows and the expert that they go to.
struct RowGroup {
  std::byte const* record = nullptr;  // of the expert
  std::int32_t first = 0;             // row
  std::int32_t rows = 0;              // at least 1
};

/// What all groups of a product share.
struct GroupShape {
  Dtype dtype = Dtype::f32;
  FfnKind kind = FfnKind::relu;
  std::int64_t n = 0, k = 0;
  std::int64_t x_stride = 0, y_stride = 0;
  std::size_t matrix = 0;  // offset of [n, k] in a record
  std::size_t gate = 0;    // the same, hidden layers with swiglu only
};

/// Most rows of a group that the products below take, for an FFN of these widths: any number where tensor cores can
/// take its rows (16-bit types, n and k multiples of 8), else 8.
std::int64_t most_group_rows(Dtype dtype, std::int64_t n, std::int64_t k) noexcept;
/// y[rows] = act(x[rows] w^T) of `dtype`, for each group: an expert's hidden layer. Any number of groups, few launches.
cudaError_t group_hidden(cudaStream_t stream, GroupShape const& shape, std::span<RowGroup const> groups, void const* x,
                         void* y);
/// y[rows] = x[rows] w^T, float: an expert's output.
cudaError_t group_output(cudaStream_t stream, GroupShape const& shape, std::span<RowGroup const> groups, void const* x,
                         float* y);

/// out = act(h), or silu(h) * up: what follows a hidden layer's products. h, up: float [rows, cols]; up with swiglu.
cudaError_t activate(cudaStream_t stream, FfnKind kind, Dtype dtype, float const* h, float const* up, void* out,
                     std::int64_t out_stride, std::int64_t rows, std::int64_t cols);

/// Assignments up to which a routing's tables may stand in host memory: they then travel with the launch.
inline constexpr std::int64_t kInlineAssignments = 256;

/// Which token each row is of: order[row] / k.
struct RowOrder {
  std::uint32_t const* on_device = nullptr;  // [rows], or
  std::uint32_t const* on_host = nullptr;    // [rows], of at most kInlineAssignments
  std::int64_t rows = 0;
  std::int64_t k = 1;
};
/// out[row] = x[order[row] / k]. x: float [tokens, cols].
cudaError_t gather_rows(cudaStream_t stream, Dtype dtype, float const* x, std::int64_t x_stride, RowOrder const& order,
                        void* out, std::int64_t out_stride, std::int64_t cols);

/// What `combine` reads of a routing: [tokens, k] each. row_of is read where the expert is not kNoExpert.
struct CombineRouting {
  std::uint16_t const* experts = nullptr;
  float const* weights = nullptr;
  std::uint32_t const* row_of = nullptr;
  std::int64_t k = 0;
  bool on_host = false;  // where the three stand; then at most kInlineAssignments
};

/// y[t] = (y[t] +) sum in rank order of weight * out[row_of], or of weight * x[t] without an expert. All float.
cudaError_t combine(cudaStream_t stream, CombineRouting const& routing, float const* out, float const* x,
                    std::int64_t x_stride, float* y, std::int64_t y_stride, std::int64_t tokens, std::int64_t cols,
                    bool adds);

/// Softmax, the highest (lowest id on a tie) and its probability; then the capacity rule, sequence by sequence.
/// A row with NaN or +infinity gets the weight NaN. logits: float [tokens, n]; real: [tokens] or null.
struct SwitchRoute {
  CapacityRule rule = CapacityRule::none;
  std::int64_t capacity = 0;
  std::uint32_t const* offsets = nullptr;  // [sequences + 1]
  std::int64_t sequences = 0;
  std::uint8_t const* real = nullptr;
};
cudaError_t route_switch(cudaStream_t stream, SwitchRoute const& rule, float const* logits, std::int64_t stride,
                         std::int64_t tokens, std::int64_t n, std::uint16_t* experts, float* weights);
/// Softmax, the k highest in descending order, ties to the lowest id. As above for a bad row.
cudaError_t route_top_k(cudaStream_t stream, float const* logits, std::int64_t stride, std::int64_t tokens,
                        std::int64_t n, std::int64_t k, bool renormalised, std::uint8_t const* real,
                        std::uint16_t* experts, float* weights);

/// out[t] = table[ids[t]], float. table: [vocab, cols].
cudaError_t embed(cudaStream_t stream, Dtype dtype, void const* table, std::int32_t const* ids, float* out,
                  std::int64_t tokens, std::int64_t cols);

/// weight * (x / rms(x)), as float into `y` and as `dtype` into `narrow`; either may be null. x: float [rows, cols].
cudaError_t rms_norm(cudaStream_t stream, Dtype dtype, float const* x, float const* weight, float epsilon, float* y,
                     void* narrow, std::int64_t narrow_stride, std::int64_t rows, std::int64_t cols);

/// out = x as `dtype`. x: float [rows, cols].
cudaError_t narrow_rows(cudaStream_t stream, Dtype dtype, float const* x, void* out, std::int64_t out_stride,
                        std::int64_t rows, std::int64_t cols);

/// T5's self-attention within each sequence: scores unscaled, a bias by relative position added.
struct Attention {
  float const* q = nullptr;  // [tokens, heads * d_kv], as k and v
  float const* k = nullptr;
  float const* v = nullptr;
  std::int64_t stride = 0;  // of q, k, v
  void* context = nullptr;  // [tokens, heads * d_kv] of `dtype`
  std::int64_t context_stride = 0;
  std::uint32_t const* offsets = nullptr;          // [sequences + 1]
  float const* position_bias = nullptr;            // [buckets, heads]
  std::int32_t const* position_buckets = nullptr;  // [max_distance + 1], of a key so far before its query
  std::int64_t sequences = 0, heads = 0, d_kv = 0, buckets = 0, max_distance = 0;
  std::int64_t longest = 0;  // tokens of the longest sequence
};
inline constexpr std::int64_t kMaxHeadWidth = 256;
cudaError_t attention(cudaStream_t stream, Dtype dtype, Attention const& args);

/// out[s] = mean of x's rows from offsets[s] up to offsets[s + 1]. x: float [tokens, cols].
cudaError_t mean_rows(cudaStream_t stream, float const* x, std::uint32_t const* offsets, float* out,
                      std::int64_t sequences, std::int64_t cols);

/// y = y + bias, then tanh if wanted. y: float [rows, cols].
cudaError_t add_bias(cudaStream_t stream, float* y, float const* bias, bool takes_tanh, std::int64_t rows,
                     std::int64_t cols);

}  // namespace sida::inline v0::cuda::kernels
