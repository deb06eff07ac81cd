#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "sida/core/api.hpp"
#include "sida/core/dtype.hpp"

namespace sida::inline v0 {

/// Instruction sets that CPU kernels are compiled for. Chosen at run time; a caller may force a lesser one. The last
/// two multiply bf16 weights with rows that were rounded to bf16 (PackedRows), and do all else as avx512 does.
enum class CpuIsa : std::uint8_t { portable, avx2, avx512, avx512_bf16, amx_bf16 };

SIDA_API std::string_view to_string(CpuIsa isa) noexcept;
SIDA_API std::optional<CpuIsa> parse_cpu_isa(std::string_view name) noexcept;
/// The best one that this processor runs.
SIDA_API CpuIsa best_cpu_isa() noexcept;
/// Those that this processor runs, the portable one first. The first call asks Linux for this process's permission to
/// use AMX, where the processor has it; where Linux refuses, amx_bf16 is not among them. A process that may use AMX has
/// signal frames of 8 KiB more: Linux then refuses alternate signal stacks (sigaltstack) below about 11 KiB.
SIDA_API std::span<CpuIsa const> runnable_cpu_isas() noexcept;
SIDA_API bool is_runnable(CpuIsa isa) noexcept;

/// Rows of x as products with weights of one type want them: some instruction sets read bf16 in an order of their own,
/// which is written once and read by many products. Of m rows of k elements.
struct PackedRows {
  CpuIsa isa = CpuIsa::portable;
  Dtype w_dtype = Dtype::f32;
  std::int64_t k = 0;

  /// Rows are packed 16 by 16, so a block of packed rows may begin at each 16th.
  static constexpr std::int64_t kPanelRows = 16;
  /// Columns may be packed in parts, each but the last a multiple of these.
  static constexpr std::int64_t kColumns = 32;

  /// Bytes of m rows; 0 where products read floats.
  SIDA_API std::size_t bytes(std::int64_t m) const noexcept;
  SIDA_API bool is_needed() const noexcept;
  /// Columns [first, first + count) of m rows, rounded to nearest even, to `packed`, which is aligned to 64 bytes.
  /// x: [m, count] of them alone. Reentrant; different panels or columns may be written at the same time. Here, and in
  /// products of packed rows, denormal values count as 0. Precondition: is_needed().
  SIDA_API void pack(float const* x, std::int64_t x_stride, std::int64_t m, std::int64_t first, std::int64_t count,
                     std::byte* packed) const noexcept;
};

/// y = x W^T for one block of outputs: y[i, j] = sum over c of x[i, c] * w[j, c]; with `adds`, y += x W^T.
/// x: [m, k] float, w: [n, k] of type `w_dtype`, y: [m, n] float; strides in elements.
/// Each y[i, j] is summed in an order that depends on k and the instruction set alone, so that splitting rows or
/// columns in any way gives identical bytes. With k = 0 the sum is 0.
/// Where `packed` is given it is read in x's place, and must be these rows packed for `isa`, `w_dtype` and `k`.
/// Otherwise no element of x is rounded, and avx512_bf16 and amx_bf16 are as avx512.
/// Precondition: `isa` is among runnable_cpu_isas(); no output overlaps an input. Reentrant, on the calling thread.
struct GemmArgs {
  float const* x = nullptr;
  std::int64_t x_stride = 0;
  void const* w = nullptr;
  std::int64_t w_stride = 0;
  float* y = nullptr;
  std::int64_t y_stride = 0;
  std::int64_t m = 0, n = 0, k = 0;
  Dtype w_dtype = Dtype::f32;
  std::byte const* packed = nullptr;
  bool adds = false;  ///< to what y holds, which is the first term of the sum, or the last
};
SIDA_API void gemm_nt(CpuIsa isa, GemmArgs const& args) noexcept;

/// Whether there is a gemm_nt_relu_pack for such rows, where `packing.isa` is among runnable_cpu_isas().
SIDA_API bool packs_relu(PackedRows const& packing) noexcept;
/// The hidden layer of a ReLU network, for the product that follows: gemm_nt into y, each y below 0 replaced by 0, and
/// columns [first, first + n) of rows of `packing` packed from it, without y. The same bytes, in less time: AMX's sums
/// are laid out as packed rows are. Zeros after the last of packing.k columns and after row m, as PackedRows packs
/// them. args: as for gemm_nt, with `packed` given; y and `adds` mean nothing. Precondition: packs_relu(packing);
/// `first` is a multiple of PackedRows::kColumns, and so is first + n, or it is packing.k.
SIDA_API void gemm_nt_relu_pack(GemmArgs const& args, PackedRows const& packing, std::int64_t first,
                                std::byte* packed) noexcept;

/// y = x B for matrices of a few rows or columns, as attention's: y[i, j] = sum over c of x[i, c] * b[c, j].
/// x: [m, k], b: [k, n], y: [m, n], all float; strides in elements. Each y[i, j] is summed in ascending order of c, so
/// that splitting rows or columns in any way gives identical bytes. With k = 0 every output is 0.
/// Precondition: `isa` is among runnable_cpu_isas(); no output overlaps an input. Reentrant, on the calling thread.
struct GemmNnArgs {
  float const* x = nullptr;
  std::int64_t x_stride = 0;
  float const* b = nullptr;
  std::int64_t b_stride = 0;
  float* y = nullptr;
  std::int64_t y_stride = 0;
  std::int64_t m = 0, n = 0, k = 0;
};
SIDA_API void gemm_nn(CpuIsa isa, GemmNnArgs const& args) noexcept;

/// Softmax of one row of scores, in place, a bias added to each score first. A score that is 70 or more below the
/// highest gets 0; others are exact to about 1e-6, relative, times how far they are below it, where that is more
/// than 1. A NaN makes the whole row NaN, and so does +inf, or a highest of -inf. `bias` and `row` don't overlap.
/// Reentrant, on the calling thread.
struct SoftmaxArgs {
  /// Whole vectors are read and written: bias and row have room for `count` rounded up to a multiple of these. What
  /// stands after `count` changes no weight; in `row` it is lost.
  static constexpr std::int64_t kRoom = 16;

  float const* bias = nullptr;  ///< [count, and room]
  float* row = nullptr;         ///< [count, and room]
  std::int64_t count = 0;
};
SIDA_API void softmax(CpuIsa isa, SoftmaxArgs const& args) noexcept;

/// One step of one sequence through an LSTM layer, PyTorch's gates in PyTorch's order (input, forget, update, output),
/// each the sum of what comes from the input and from the state before, biases included. `cell` and `state` are
/// replaced. To about 1e-6, absolute where a value is below 1; NaN stays NaN. Nothing overlaps. Reentrant, on the
/// calling thread.
struct LstmCellArgs {
  float const* from_input = nullptr;  ///< [4 * hidden]
  float const* from_state = nullptr;  ///< [4 * hidden]
  float* cell = nullptr;              ///< [hidden]
  float* state = nullptr;             ///< [hidden]
  std::int64_t hidden = 0;
};
SIDA_API void lstm_cell(CpuIsa isa, LstmCellArgs const& args) noexcept;

}  // namespace sida::inline v0
