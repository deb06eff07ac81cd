#include <limits>

#include "kernels/cuda/row_groups.cuh"

namespace sida::inline v0::cuda::kernels {
namespace {

// Few rows of x against many rows of w: every weight is read once, in 16-byte loads, so the memory's bandwidth is the
// bound. A warp takes kOutputs rows of w at a time; each lane keeps a sum for every (row of w, row of x), and one
// exchange at the end leaves each sum in one lane.
constexpr std::int64_t kSkinnyRows = 8;  // most of a group
constexpr int kOutputs = 4;
constexpr int kWarps = 8;

/// Afterwards lane l holds the warp's sum number l >> (5 - log2 COUNT); lanes that share a number hold the same. Each
/// step halves what a lane keeps: 31 exchanges for 32 sums, where one sum after the other would take 160.
template <int COUNT, int OFFSET = kWarp / 2>
__device__ __forceinline__ float scatter_sums(float const (&sums)[COUNT]) {
  if constexpr (COUNT == 1) {
    float sum = sums[0];
#pragma unroll
    for (int offset = OFFSET; offset > 0; offset /= 2) sum += __shfl_xor_sync(kAllLanes, sum, offset);
    return sum;
  } else {
    constexpr int kHalf = COUNT / 2;
    bool const upper = (threadIdx.x & OFFSET) != 0;
    float halves[kHalf];
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      float const sent = upper ? sums[i] : sums[i + kHalf];
      float const kept = upper ? sums[i + kHalf] : sums[i];
      halves[i] = kept + __shfl_xor_sync(kAllLanes, sent, OFFSET);
    }
    return scatter_sums<kHalf, OFFSET / 2>(halves);
  }
}

/// sums[o * ROWS + r] += w[o] . x[rows[r]], this lane's share of k. rows: where each row starts.
template <class T, int WIDTH, int ROWS>
__device__ __forceinline__ void multiply(T const* const (&w)[kOutputs], T const* x, int const (&rows)[ROWS],
                                         std::int64_t k, float (&sums)[kOutputs * ROWS]) {
  int const lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll 2
  for (std::int64_t at = lane * WIDTH; at < k; at += kWarp * WIDTH) {
    float weights[kOutputs][WIDTH];
#pragma unroll
    for (int o = 0; o < kOutputs; ++o) load_floats<T, WIDTH>(w[o] + at, weights[o]);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      float inputs[WIDTH];
      load_floats<T, WIDTH>(x + rows[r] + at, inputs);
#pragma unroll
      for (int o = 0; o < kOutputs; ++o) {
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) sums[o * ROWS + r] = fmaf(weights[o][i], inputs[i], sums[o * ROWS + r]);
      }
    }
  }
}

struct Place {
  std::int64_t output;  // row of w, column of y
  int row;              // of the group
  bool writes;          // the lane that does
};

template <int ROWS>
__device__ __forceinline__ Place place_of(std::int64_t first_output) {
  constexpr int kShare = kWarp / (kOutputs * ROWS);  // lanes that hold the same sum
  int const lane = static_cast<int>(threadIdx.x) % kWarp;
  int const number = lane / kShare;
  return {first_output + number / ROWS, number % ROWS, lane % kShare == 0};
}

/// One warp's kOutputs outputs for one group. ROWS: the group's rows, or the next power of two.
template <class T, int WIDTH, int ROWS, bool HIDDEN>
__device__ __forceinline__ void outputs_of_group(GroupShape const& shape, RowGroup const& group, T const* x, void* y,
                                                 std::int64_t first_output) {
  // Rows beyond the group's, and outputs beyond n, are computed from the last ones and not written.
  T const* w[kOutputs];
  T const* gates[kOutputs];
#pragma unroll
  for (int o = 0; o < kOutputs; ++o) {
    std::int64_t const output = first_output + o < shape.n ? first_output + o : shape.n - 1;
    w[o] = reinterpret_cast<T const*>(group.record + shape.matrix) + output * shape.k;
    gates[o] = reinterpret_cast<T const*>(group.record + shape.gate) + output * shape.k;
  }
  T const* const inputs = x + group.first * shape.x_stride;
  int rows[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) rows[r] = (r < group.rows ? r : group.rows - 1) * static_cast<int>(shape.x_stride);
  Place const place = place_of<ROWS>(first_output);
  bool const writes = place.writes && place.row < group.rows && place.output < shape.n;
  float sums[kOutputs * ROWS] = {};
  multiply<T, WIDTH, ROWS>(w, inputs, rows, shape.k, sums);
  float value = scatter_sums(sums);
  std::int64_t const at = (group.first + place.row) * shape.y_stride + place.output;
  if constexpr (HIDDEN) {
    if (shape.kind == FfnKind::swiglu) {
      float gate_sums[kOutputs * ROWS] = {};
      multiply<T, WIDTH, ROWS>(gates, inputs, rows, shape.k, gate_sums);
      value = silu(scatter_sums(gate_sums)) * value;
    } else {
      value = shape.kind == FfnKind::gelu ? gelu(value) : relu(value);
    }
    if (writes) static_cast<T*>(y)[at] = narrow<T>(value);
  } else {
    if (writes) static_cast<float*>(y)[at] = value;
  }
}

/// Grid: [blocks of outputs, groups].
template <class T, int WIDTH, bool HIDDEN>
__global__ void __launch_bounds__(kWarps* kWarp)
    skinny_kernel(GroupShape const shape, RowGroups const groups, T const* x, void* y) {
  let_next_kernel_start();
  wait_for_earlier_kernel();
  RowGroup const& group = groups.at[blockIdx.y];
  std::int64_t const first_output =
      (static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp) * std::int64_t{kOutputs};
  if (first_output >= shape.n) return;
  if (group.rows == 1) {
    outputs_of_group<T, WIDTH, 1, HIDDEN>(shape, group, x, y, first_output);
  } else if (group.rows == 2) {
    outputs_of_group<T, WIDTH, 2, HIDDEN>(shape, group, x, y, first_output);
  } else if (group.rows <= 4) {
    outputs_of_group<T, WIDTH, 4, HIDDEN>(shape, group, x, y, first_output);
  } else {
    outputs_of_group<T, WIDTH, 8, HIDDEN>(shape, group, x, y, first_output);
  }
}

template <class T, bool HIDDEN>
cudaError_t run(cudaStream_t stream, GroupShape const& shape, std::span<RowGroup const> groups, void const* x,
                void* y) {
  auto const* const rows = static_cast<T const*>(x);
  return for_launches(groups, 0, static_cast<int>(kSkinnyRows), [&](RowGroups const& some) {
    dim3 const grid(blocks_for(shape.n, kWarps * kOutputs), static_cast<unsigned>(some.count));
    if constexpr (std::is_same_v<T, float>) {
      if (shape.k % kPack<T> == 0) {
        return launch_early(stream, grid, kWarps * kWarp, skinny_kernel<T, kPack<T>, HIDDEN>, shape, some, rows, y);
      }
    }
    return launch_early(stream, grid, kWarps * kWarp, skinny_kernel<T, 1, HIDDEN>, shape, some, rows, y);
  });
}

}  // namespace

bool can_tile(Dtype dtype, std::int64_t k) noexcept { return dtype != Dtype::f32 && k % 8 == 0; }

std::int64_t most_group_rows(Dtype dtype, std::int64_t n, std::int64_t k) noexcept {
  bool const tiles = can_tile(dtype, n) && can_tile(dtype, k);
  return tiles ? std::numeric_limits<std::int32_t>::max() : kSkinnyRows;
}

cudaError_t group_hidden(cudaStream_t stream, GroupShape const& shape, std::span<RowGroup const> groups, void const* x,
                         void* y) {
  if (can_tile(shape.dtype, shape.k)) {
    Product const product = shape.kind == FfnKind::swiglu ? Product::gated : Product::hidden;
    cudaError_t const error = skinny_mma(stream, shape, groups, x, y, product);
    return error == cudaSuccess ? tiled_mma(stream, shape, groups, x, y, product) : error;
  }
  return with_element(shape.dtype, [&]<class T>(T) { return run<T, true>(stream, shape, groups, x, y); });
}

cudaError_t group_output(cudaStream_t stream, GroupShape const& shape, std::span<RowGroup const> groups, void const* x,
                         float* y) {
  if (can_tile(shape.dtype, shape.k)) {
    cudaError_t const error = skinny_mma(stream, shape, groups, x, y, Product::output);
    return error == cudaSuccess ? tiled_mma(stream, shape, groups, x, y, Product::output) : error;
  }
  return with_element(shape.dtype, [&]<class T>(T) { return run<T, false>(stream, shape, groups, x, y); });
}

}  // namespace sida::inline v0::cuda::kernels
