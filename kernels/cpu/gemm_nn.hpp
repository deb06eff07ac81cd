#pragma once

#include <stdint.h>

namespace sida::kernels {

/// y = x B; see GemmNnArgs in sida/kernels/cpu.hpp. Strides in elements.
struct GemmNn {
  float const* x;  // [m, k]
  int64_t x_stride;
  float const* b;  // [k, n]
  int64_t b_stride;
  float* y;  // [m, n]
  int64_t y_stride;
  int64_t m, n, k;
};

// The order of one sum, the same in all files: products are added in ascending order of k.

void gemm_nn_portable(GemmNn const& args) noexcept;
void gemm_nn_avx2(GemmNn const& args) noexcept;
void gemm_nn_avx512(GemmNn const& args) noexcept;

}  // namespace sida::kernels
