#include <algorithm>
#include <array>

#include "kernels/cpu/gemm_nn.hpp"
#include "kernels/cpu/gemm_nt.hpp"
#include "kernels/cpu/lstm_cell.hpp"
#include "kernels/cpu/softmax.hpp"
#include "sida/kernels/cpu.hpp"

#ifdef SIDA_HAVE_AVX2
#include <cpuid.h>
#endif
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace sida::inline v0 {

namespace {

// Each runs where its followers do.
constexpr std::array kIsas = {CpuIsa::portable, CpuIsa::avx2, CpuIsa::avx512, CpuIsa::avx512_bf16, CpuIsa::amx_bf16};

bool runs_avx2() noexcept {
#ifdef SIDA_HAVE_AVX2
  // Clang 14 does not know "f16c": bit 29 of ecx of leaf 1.
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  bool const f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx >> 29 & 1U) != 0;
  return f16c && __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
#else
  return false;
#endif
}

bool runs_avx512() noexcept {
#ifdef SIDA_HAVE_AVX2
  return runs_avx2() && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
         __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512bw") != 0;
#else
  return false;
#endif
}

bool runs_avx512_bf16() noexcept {
#ifdef SIDA_HAVE_AVX2
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  bool const bf16 = __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 5 & 1U) != 0;
  return bf16 && runs_avx512();
#else
  return false;
#endif
}

/// Linux lends AMX's 8 KiB of registers to processes that ask for them, and only shows that it would.
bool may_use_tiles() noexcept {
#if defined(__linux__) && defined(__x86_64__) && defined(SYS_arch_prctl)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool runs_amx_bf16() noexcept {
#ifdef SIDA_HAVE_AVX2
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kAmx = 1U << 22 | 1U << 24;  // bf16 and tiles
  bool const amx = __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kAmx) == kAmx;
  return amx && runs_avx512_bf16() && may_use_tiles();
#else
  return false;
#endif
}

std::size_t count_isas() noexcept {
  if (runs_amx_bf16()) return 5;
  if (runs_avx512_bf16()) return 4;
  return runs_avx512() ? 3 : runs_avx2() ? 2 : 1;
}

std::int64_t packed_depth(std::int64_t k) noexcept {
  return (k + kernels::kPackedDepth - 1) / kernels::kPackedDepth * kernels::kPackedDepth;
}

kernels::WeightType weight_type(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::f16: return kernels::kWeightF16;
    case Dtype::bf16: return kernels::kWeightBf16;
    case Dtype::f32: break;
  }
  return kernels::kWeightF32;
}

kernels::GemmNt plain_args(CpuIsa isa, GemmArgs const& args) noexcept {
  kernels::GemmNt plain = {args.x,        args.x_stride, args.w, args.w_stride, args.y,
                           args.y_stride, args.m,        args.n, args.k,        weight_type(args.w_dtype),
                           args.adds};
  if (args.packed != nullptr) {
    plain.x = args.packed;
    plain.x_stride = packed_depth(args.k) * (isa == CpuIsa::amx_bf16 ? PackedRows::kPanelRows : 1);
  }
  return plain;
}

static_assert(PackedRows::kPanelRows == kernels::kPanelRows && PackedRows::kColumns == kernels::kPackedDepth);

}  // namespace

std::string_view to_string(CpuIsa isa) noexcept {
  switch (isa) {
    case CpuIsa::portable: return "portable";
    case CpuIsa::avx2: return "avx2";
    case CpuIsa::avx512: return "avx512";
    case CpuIsa::avx512_bf16: return "avx512_bf16";
    case CpuIsa::amx_bf16: return "amx_bf16";
  }
  return "unknown";
}

std::optional<CpuIsa> parse_cpu_isa(std::string_view name) noexcept {
  for (CpuIsa const isa : kIsas) {
    if (name == to_string(isa)) return isa;
  }
  return std::nullopt;
}

std::span<CpuIsa const> runnable_cpu_isas() noexcept {
  static std::size_t const count = count_isas();
  return std::span(kIsas).first(count);
}

bool is_runnable(CpuIsa isa) noexcept {
  auto const isas = runnable_cpu_isas();
  return std::find(isas.begin(), isas.end(), isa) != isas.end();
}

CpuIsa best_cpu_isa() noexcept { return runnable_cpu_isas().back(); }

bool PackedRows::is_needed() const noexcept { return isa >= CpuIsa::avx512_bf16 && w_dtype == Dtype::bf16; }

std::size_t PackedRows::bytes(std::int64_t m) const noexcept {
  if (!is_needed()) return 0;
  std::int64_t const panels = (m + kPanelRows - 1) / kPanelRows;
  return static_cast<std::size_t>(panels * kPanelRows * packed_depth(k)) * sizeof(bf16);
}

void PackedRows::pack([[maybe_unused]] float const* x, [[maybe_unused]] std::int64_t x_stride,
                      [[maybe_unused]] std::int64_t m, [[maybe_unused]] std::int64_t first,
                      [[maybe_unused]] std::int64_t count, [[maybe_unused]] std::byte* packed) const noexcept {
#ifdef SIDA_HAVE_AVX2
  kernels::PackRows const args = {x, x_stride, reinterpret_cast<std::uint16_t*>(packed), m, k, first, count};
  if (isa == CpuIsa::amx_bf16) return kernels::pack_rows_amx_bf16(args);
  kernels::pack_rows_avx512_bf16(args);
#endif
}

void gemm_nt(CpuIsa isa, GemmArgs const& args) noexcept {
  kernels::GemmNt const plain = plain_args(isa, args);
#ifdef SIDA_HAVE_AVX2
  if (args.packed != nullptr) {
    return isa == CpuIsa::amx_bf16 ? kernels::gemm_nt_amx_bf16(plain) : kernels::gemm_nt_avx512_bf16(plain);
  }
  if (isa >= CpuIsa::avx512) return kernels::gemm_nt_avx512(plain);
  if (isa == CpuIsa::avx2) return kernels::gemm_nt_avx2(plain);
#endif
  kernels::gemm_nt_portable(plain);
}

bool packs_relu(PackedRows const& packing) noexcept { return packing.isa == CpuIsa::amx_bf16 && packing.is_needed(); }

void gemm_nt_relu_pack([[maybe_unused]] GemmArgs const& args, [[maybe_unused]] PackedRows const& packing,
                       [[maybe_unused]] std::int64_t first, [[maybe_unused]] std::byte* packed) noexcept {
#ifdef SIDA_HAVE_AVX2
  kernels::GemmNt plain = plain_args(packing.isa, args);
  plain.packed_relu_panel = packed_depth(packing.k) * PackedRows::kPanelRows;
  plain.packed_relu = reinterpret_cast<std::uint16_t*>(packed) + first * PackedRows::kPanelRows;
  kernels::gemm_nt_amx_bf16(plain);
#endif
}

void gemm_nn(CpuIsa isa, GemmNnArgs const& args) noexcept {
  kernels::GemmNn const plain = {args.x,        args.x_stride, args.b, args.b_stride, args.y,
                                 args.y_stride, args.m,        args.n, args.k};
#ifdef SIDA_HAVE_AVX2
  if (isa >= CpuIsa::avx512) return kernels::gemm_nn_avx512(plain);
  if (isa == CpuIsa::avx2) return kernels::gemm_nn_avx2(plain);
#endif
  static_cast<void>(isa);
  kernels::gemm_nn_portable(plain);
}

void softmax(CpuIsa isa, SoftmaxArgs const& args) noexcept {
  kernels::Softmax const plain = {args.bias, args.row, args.count};
#ifdef SIDA_HAVE_AVX2
  if (isa >= CpuIsa::avx2) return kernels::softmax_avx2(plain);
#endif
  static_cast<void>(isa);
  kernels::softmax_portable(plain);
}

void lstm_cell(CpuIsa isa, LstmCellArgs const& args) noexcept {
  kernels::LstmCell const plain = {args.from_input, args.from_state, args.cell, args.state, args.hidden};
#ifdef SIDA_HAVE_AVX2
  if (isa >= CpuIsa::avx2) return kernels::lstm_cell_avx2(plain);
#endif
  static_cast<void>(isa);
  kernels::lstm_cell_portable(plain);
}

}  // namespace sida::inline v0
