#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.hpp"
#include "sida/route/routing.hpp"

// What moves rows and changes them element by element: one block a row, or a part of it.
namespace sida::inline v0::cuda::kernels {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kColumnsPerBlock = 4 * kThreads;

/// Blocks for [rows, cols]: rows in x, which may be many, parts of a row in y.
dim3 row_grid(std::int64_t rows, std::int64_t cols) {
  return {static_cast<unsigned>(rows), blocks_for(cols, kColumnsPerBlock)};
}

/// Calls f(column) for this thread's columns of the block's part.
template <class F>
__device__ __forceinline__ void for_columns(std::int64_t cols, F const& f) {
  std::int64_t const first = static_cast<std::int64_t>(blockIdx.y) * kColumnsPerBlock;
  std::int64_t const end = first + kColumnsPerBlock < cols ? first + kColumnsPerBlock : cols;
  for (std::int64_t c = first + threadIdx.x; c < end; c += kThreads) f(c);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    activate_kernel(FfnKind kind, float const* h, float const* up, T* out, std::int64_t out_stride, std::int64_t cols) {
  std::int64_t const row = blockIdx.x;
  for_columns(cols, [&](std::int64_t c) {
    float const value = h[row * cols + c];
    float result = relu(value);
    if (kind == FfnKind::gelu) result = gelu(value);
    if (kind == FfnKind::swiglu) result = silu(value) * up[row * cols + c];
    out[row * out_stride + c] = narrow<T>(result);
  });
}

/// Small tables travel with the launch itself, which spares a copy that the launch would wait for.
constexpr int kInline = 256;
struct InlineOrder {
  std::uint32_t at[kInline];
  __device__ std::uint32_t operator[](std::int64_t row) const { return at[row]; }
};
struct InlineRouting {
  std::uint16_t experts[kInline];
  float weights[kInline];
  std::uint32_t row_of[kInline];
  std::int64_t k;
};

template <class T, class Order>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(float const* x, std::int64_t x_stride, Order const order, std::int64_t k, T* out,
                  std::int64_t out_stride, std::int64_t cols) {
  let_next_kernel_start();
  wait_for_earlier_kernel();
  std::int64_t const row = blockIdx.x;
  std::int64_t const token = order[row] / k;
  for_columns(cols, [&](std::int64_t c) { out[row * out_stride + c] = narrow<T>(x[token * x_stride + c]); });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    narrow_kernel(float const* x, T* out, std::int64_t out_stride, std::int64_t cols) {
  std::int64_t const row = blockIdx.x;
  for_columns(cols, [&](std::int64_t c) { out[row * out_stride + c] = narrow<T>(x[row * cols + c]); });
}

template <class Table>
__global__ void __launch_bounds__(kThreads)
    combine_kernel(Table const routing, float const* out, float const* x, std::int64_t x_stride, float* y,
                   std::int64_t y_stride, std::int64_t cols, bool adds) {
  let_next_kernel_start();
  wait_for_earlier_kernel();
  std::int64_t const token = blockIdx.x;
  for_columns(cols, [&](std::int64_t c) {
    float sum = 0.0F;
    for (std::int64_t r = 0; r < routing.k; ++r) {
      std::int64_t const assignment = token * routing.k + r;
      float const weight = routing.weights[assignment];
      bool const passes_through = routing.experts[assignment] == kNoExpert;
      if (passes_through && weight == 0.0F) continue;
      float const value = passes_through ? x[token * x_stride + c] : out[routing.row_of[assignment] * cols + c];
      sum = __fadd_rn(sum, __fmul_rn(weight, value));  // as written: no contraction
    }
    float* const to = y + token * y_stride + c;
    *to = adds ? *to + sum : sum;
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    embed_kernel(T const* table, std::int32_t const* ids, float* out, std::int64_t cols) {
  std::int64_t const token = blockIdx.x;
  std::int64_t const id = ids[token];
  for_columns(cols, [&](std::int64_t c) { out[token * cols + c] = widen(table[id * cols + c]); });
}

__global__ void __launch_bounds__(kThreads)
    add_bias_kernel(float* y, float const* bias, bool takes_tanh, std::int64_t cols) {
  std::int64_t const row = blockIdx.x;
  for_columns(cols, [&](std::int64_t c) {
    float const value = y[row * cols + c] + bias[c];
    y[row * cols + c] = takes_tanh ? tanhf(value) : value;
  });
}

__global__ void __launch_bounds__(kThreads)
    mean_kernel(float const* x, std::uint32_t const* offsets, float* out, std::int64_t cols) {
  std::int64_t const first = offsets[blockIdx.x];
  std::int64_t const end = offsets[blockIdx.x + 1];
  for_columns(cols, [&](std::int64_t c) {
    double sum = 0;
    for (std::int64_t t = first; t < end; ++t) sum += static_cast<double>(x[t * cols + c]);
    out[static_cast<std::int64_t>(blockIdx.x) * cols + c] = static_cast<float>(sum / static_cast<double>(end - first));
  });
}

/// One block a row. The mean of squares is summed in double, as on a CPU.
template <class T>
__global__ void __launch_bounds__(kThreads)
    rms_norm_kernel(float const* x, float const* weight, float epsilon, float* y, T* narrowed,
                    std::int64_t narrow_stride, std::int64_t cols) {
  __shared__ double sums[kThreads];
  std::int64_t const row = blockIdx.x;
  double squares = 0;
  for (std::int64_t c = threadIdx.x; c < cols; c += kThreads) {
    double const value = static_cast<double>(x[row * cols + c]);
    squares += value * value;
  }
  sums[threadIdx.x] = squares;
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  __syncthreads();
  auto const variance = static_cast<float>(sums[0] / static_cast<double>(cols));
  float const scale = 1.0F / sqrtf(variance + epsilon);
  for (std::int64_t c = threadIdx.x; c < cols; c += kThreads) {
    float const value = weight[c] * (x[row * cols + c] * scale);
    if (y != nullptr) y[row * cols + c] = value;
    if (narrowed != nullptr) narrowed[row * narrow_stride + c] = narrow<T>(value);
  }
}

}  // namespace

cudaError_t activate(cudaStream_t stream, FfnKind kind, Dtype dtype, float const* h, float const* up, void* out,
                     std::int64_t out_stride, std::int64_t rows, std::int64_t cols) {
  return with_element(dtype, [&]<class T>(T) {
    return launch(stream, row_grid(rows, cols), kThreads, activate_kernel<T>, kind, h, up, static_cast<T*>(out),
                  out_stride, cols);
  });
}

cudaError_t gather_rows(cudaStream_t stream, Dtype dtype, float const* x, std::int64_t x_stride, RowOrder const& order,
                        void* out, std::int64_t out_stride, std::int64_t cols) {
  dim3 const grid = row_grid(order.rows, cols);
  return with_element(dtype, [&]<class T>(T) {
    if (order.on_device != nullptr) {
      return launch_early(stream, grid, kThreads, gather_kernel<T, std::uint32_t const*>, x, x_stride, order.on_device,
                          order.k, static_cast<T*>(out), out_stride, cols);
    }
    InlineOrder table;
    for (std::int64_t i = 0; i < order.rows; ++i) table.at[i] = order.on_host[i];
    return launch_early(stream, grid, kThreads, gather_kernel<T, InlineOrder>, x, x_stride, table, order.k,
                        static_cast<T*>(out), out_stride, cols);
  });
}

cudaError_t narrow_rows(cudaStream_t stream, Dtype dtype, float const* x, void* out, std::int64_t out_stride,
                        std::int64_t rows, std::int64_t cols) {
  return with_element(dtype, [&]<class T>(T) {
    return launch(stream, row_grid(rows, cols), kThreads, narrow_kernel<T>, x, static_cast<T*>(out), out_stride, cols);
  });
}

cudaError_t combine(cudaStream_t stream, CombineRouting const& routing, float const* out, float const* x,
                    std::int64_t x_stride, float* y, std::int64_t y_stride, std::int64_t tokens, std::int64_t cols,
                    bool adds) {
  dim3 const grid = row_grid(tokens, cols);
  if (!routing.on_host) {
    return launch_early(stream, grid, kThreads, combine_kernel<CombineRouting>, routing, out, x, x_stride, y, y_stride,
                        cols, adds);
  }
  InlineRouting table;
  table.k = routing.k;
  for (std::int64_t i = 0; i < tokens * routing.k; ++i) {
    table.experts[i] = routing.experts[i];
    table.weights[i] = routing.weights[i];
    table.row_of[i] = routing.row_of[i];
  }
  return launch_early(stream, grid, kThreads, combine_kernel<InlineRouting>, table, out, x, x_stride, y, y_stride, cols,
                      adds);
}

cudaError_t embed(cudaStream_t stream, Dtype dtype, void const* table, std::int32_t const* ids, float* out,
                  std::int64_t tokens, std::int64_t cols) {
  return with_element(dtype, [&]<class T>(T) {
    return launch(stream, row_grid(tokens, cols), kThreads, embed_kernel<T>, static_cast<T const*>(table), ids, out,
                  cols);
  });
}

cudaError_t add_bias(cudaStream_t stream, float* y, float const* bias, bool takes_tanh, std::int64_t rows,
                     std::int64_t cols) {
  return launch(stream, row_grid(rows, cols), kThreads, add_bias_kernel, y, bias, takes_tanh, cols);
}

cudaError_t mean_rows(cudaStream_t stream, float const* x, std::uint32_t const* offsets, float* out,
                      std::int64_t sequences, std::int64_t cols) {
  return launch(stream, row_grid(sequences, cols), kThreads, mean_kernel, x, offsets, out, cols);
}

cudaError_t rms_norm(cudaStream_t stream, Dtype dtype, float const* x, float const* weight, float epsilon, float* y,
                     void* narrow, std::int64_t narrow_stride, std::int64_t rows, std::int64_t cols) {
  return with_element(dtype, [&]<class T>(T) {
    return launch(stream, static_cast<unsigned>(rows), kThreads, rms_norm_kernel<T>, x, weight, epsilon, y,
                  static_cast<T*>(narrow), narrow_stride, cols);
  });
}

}  // namespace sida::inline v0::cuda::kernels
