#pragma once

#include <stdint.h>

/// What dispatch.cpp and the files for one instruction set share: plain data, no inline function, no template.
namespace sida::kernels {

enum WeightType { kWeightF32, kWeightF16, kWeightBf16 };

/// y = x W^T; see GemmArgs in sida/kernels/cpu.hpp. Strides in elements.
struct GemmNt {
  void const* x;  // [m, k] float, or what the function says
  int64_t x_stride;
  void const* w;  // [n, k]
  int64_t w_stride;
  float* y;  // [m, n]
  int64_t y_stride;
  int64_t m, n, k;
  WeightType w_type;
  bool adds = false;  // to what y holds
  /// AMX alone: where relu(y) goes, packed, in place of y, and elements from one panel to the next; or null. Columns of
  /// zeros fill up the last step.
  uint16_t* packed_relu = nullptr;
  int64_t packed_relu_panel = 0;
};

// The order of one sum, the same in all files but avx512's, which has twice the lanes: k is cut into segments of this
// length; within one, lane l of 8 adds up the products at c = l mod 8 in ascending order; the lanes meet as s[l] =
// lane[l] + lane[l + 4], then (s[0] + s[1]) + (s[2] + s[3]); segments are added in ascending order. A segment of a
// tile's rows of W and x, which are 4 and 3 to 6, stays in the L1 cache.
constexpr int64_t kLanes = 8;
constexpr int64_t kSegment = 1024;

void gemm_nt_portable(GemmNt const& args) noexcept;
void gemm_nt_avx2(GemmNt const& args) noexcept;
void gemm_nt_avx512(GemmNt const& args) noexcept;

// Products of bf16 with bf16: W is bf16, and x packed by `pack_rows_*`, x_stride elements from row to row (of avx512)
// or from 16 rows to the next 16 (of AMX). The order of a sum: of avx512 as above, each of 16 lanes taking two elements
// at a time; of AMX the processor's own within kPackedDepth elements of k, and one such step after the other.
void gemm_nt_avx512_bf16(GemmNt const& args) noexcept;
void gemm_nt_amx_bf16(GemmNt const& args) noexcept;

/// k of packed rows: a whole number of these, zeros at the end.
constexpr int64_t kPackedDepth = 32;
/// Rows that AMX wants side by side, zeros after the last.
constexpr int64_t kPanelRows = 16;

/// Rows of floats as bf16, rounded to nearest even: columns [first, first + count) of m rows of `k`, the first of
/// which is a panel's first. `first` is a multiple of kPackedDepth, and so is first + count, or it is k.
struct PackRows {
  float const* x;  // [m, count]
  int64_t x_stride;
  uint16_t* to;
  int64_t m, k, first, count;
};
void pack_rows_avx512_bf16(PackRows const& args) noexcept;
void pack_rows_amx_bf16(PackRows const& args) noexcept;

}  // namespace sida::kernels
