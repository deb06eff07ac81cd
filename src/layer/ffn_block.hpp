#pragma once

#include <cstddef>
#include <cstdint>

#include "sida/core/expert_layout.hpp"
#include "sida/core/matrix.hpp"
#include "sida/kernels/cpu.hpp"

namespace sida::inline v0::detail {

/// One expert on a block of rows, in two steps whose columns may be shared out in any way: all of h, then y.
struct FfnBlock {
  ExpertLayout const& layout;
  std::byte const* record;
  CpuIsa isa;
  Matrix<float const> x;  // [rows, d_model]
  Matrix<float> h;        // [rows, d_ff]
  Matrix<float> up;       // [rows, d_ff], scratch; swiglu only
  Matrix<float> y;        // [rows, d_model]
  // Where products want rows packed (PackedRows), else null.
  std::byte const* packed_x;  // of x
  std::byte* packed_h;        // scratch, of h
};

/// Columns [first, first + count) of h = act(x wi^T), PackedRows::kColumns at a time where h is packed; then h itself
/// may stay unwritten.
void ffn_hidden(FfnBlock const& block, std::int64_t first, std::int64_t count);
/// Columns [first, first + count) of y = h wo^T.
void ffn_output(FfnBlock const& block, std::int64_t first, std::int64_t count);

}  // namespace sida::inline v0::detail
