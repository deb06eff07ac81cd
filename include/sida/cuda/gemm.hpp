#pragma once

#include <cstddef>
#include <cstdint>
#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <span>
#include <vector>

#include "sida/core/api.hpp"
#include "sida/core/dtype.hpp"
#include "sida/core/result.hpp"

namespace sida::inline v0::cuda {

/// y = x w^T, or y += x w^T. All in device memory, x, w and y at addresses that are multiples of 16.
struct GemmArgs {
  void const* x = nullptr;  ///< [m, k] of the weights' type; rows a multiple of 16 bytes apart
  std::int64_t x_stride = 0;
  void const* w = nullptr;  ///< [n, k], rows k apart
  float* y = nullptr;       ///< [m, n]
  std::int64_t y_stride = 0;
  std::int64_t m = 0, n = 0, k = 0;
  Dtype dtype = Dtype::f32;  ///< of x and w
  bool adds = false;         ///< to what stands in y
};

/// Dense products by cuBLASLt over a handle and a workspace that the caller lends. float32 is float32: no TF32. Sums
/// are float32 in one pass (no split-K), by an algorithm that is chosen once for each (m up to a power of two, n, k,
/// dtype), so that bytes are a function of shapes and operands alone. What cuBLASLt has no algorithm for (rows that
/// are not whole multiples of 16 bytes) goes through a kernel of sida's own.
/// Not thread-safe: one for each stream that works at the same time.
class SIDA_API Gemm {
 public:
  static constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

  /// `blas` and `workspace` (device memory, aligned to 256, kWorkspaceBytes or 0 bytes) must outlive this.
  Gemm(cublasHandle_t blas, std::span<std::byte> workspace) noexcept : blas_(blas), workspace_(workspace) {}

  /// Enqueues on `stream`. @return device; out_of_memory.
  Status run(cudaStream_t stream, GemmArgs const& args);

 private:
  struct Key {
    std::int64_t m, n, k, x_stride, y_stride;
    Dtype dtype;
    friend bool operator==(Key const&, Key const&) = default;
  };
  struct Choice {
    Key key;
    bool has_algorithm;
    cublasLtMatmulAlgo_t algorithm;
  };
  Result<Choice const*> choose(GemmArgs const& args);

  cublasHandle_t blas_;
  std::span<std::byte> workspace_;
  std::vector<Choice> choices_;
};

}  // namespace sida::inline v0::cuda
