#pragma once

#include <stdint.h>

/// What dispatch.cpp and the files for one instruction set share: plain data, no inline function, no template.
namespace sida::kernels {

enum WeightType { kWeightF32, kWeightF16, kWeightBf16 };

/// y = x W^T; see GemmArgs in sida/kernels/cpu.hpp. Strides in elements.
struct GemmNt {
  float const* x;  // [m, k]
  int64_t x_stride;
  void const* w;  // [n, k]
  int64_t w_stride;
  float* y;  // [m, n]
  int64_t y_stride;
  int64_t m, n, k;
  WeightType w_type;
};

// The order of one sum, the same in all files but avx512's, which has twice the lanes: k is cut into segments of this
// length; within one, lane l of 8 adds up the products at c = l mod 8 in ascending order; the lanes meet as s[l] =
// lane[l] + lane[l + 4], then (s[0] + s[1]) + (s[2] + s[3]); segments are added in ascending order. A segment is as
// long as 4 rows of W and 3 rows of x may be to stay in a 32 KiB L1 cache together.
constexpr int64_t kLanes = 8;
constexpr int64_t kSegment = 1024;

void gemm_nt_portable(GemmNt const& args) noexcept;
void gemm_nt_avx2(GemmNt const& args) noexcept;
void gemm_nt_avx512(GemmNt const& args) noexcept;

}  // namespace sida::kernels
