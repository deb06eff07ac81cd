#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.hpp"

namespace sida::inline v0::cuda::kernels {
namespace {

constexpr int kTile = 16;

/// Correct for every shape, quick for none: a tile of y by one block, k in steps through shared memory.
template <class T>
__global__ void __launch_bounds__(kTile* kTile)
    gemm_any_kernel(T const* x, std::int64_t x_stride, T const* w, float* y, std::int64_t y_stride, std::int64_t m,
                    std::int64_t n, std::int64_t k, bool adds) {
  __shared__ float x_tile[kTile][kTile + 1];
  __shared__ float w_tile[kTile][kTile + 1];
  int const column = static_cast<int>(threadIdx.x) % kTile;
  int const row = static_cast<int>(threadIdx.x) / kTile;
  std::int64_t const m_first = static_cast<std::int64_t>(blockIdx.x) * kTile;
  std::int64_t const n_first = static_cast<std::int64_t>(blockIdx.y) * kTile;
  float sum = 0.0F;
  for (std::int64_t at = 0; at < k; at += kTile) {
    bool const in_k = at + column < k;
    bool const has_x = in_k && m_first + row < m;
    bool const has_w = in_k && n_first + row < n;
    x_tile[row][column] = has_x ? widen(x[(m_first + row) * x_stride + at + column]) : 0.0F;
    w_tile[row][column] = has_w ? widen(w[(n_first + row) * k + at + column]) : 0.0F;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kTile; ++i) sum = fmaf(x_tile[row][i], w_tile[column][i], sum);
    __syncthreads();
  }
  if (m_first + row >= m || n_first + column >= n) return;
  float* const to = y + (m_first + row) * y_stride + n_first + column;
  *to = adds ? *to + sum : sum;
}

}  // namespace

cudaError_t gemm_any(cudaStream_t stream, Dtype dtype, void const* x, std::int64_t x_stride, void const* w, float* y,
                     std::int64_t y_stride, std::int64_t m, std::int64_t n, std::int64_t k, bool adds) {
  dim3 const grid(blocks_for(m, kTile), blocks_for(n, kTile));
  return with_element(dtype, [&]<class T>(T) {
    return launch(stream, grid, kTile * kTile, gemm_any_kernel<T>, static_cast<T const*>(x), x_stride,
                  static_cast<T const*>(w), y, y_stride, m, n, k, adds);
  });
}

}  // namespace sida::inline v0::cuda::kernels
