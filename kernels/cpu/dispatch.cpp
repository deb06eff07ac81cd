#include <algorithm>
#include <array>

#include "kernels/cpu/gemm_nt.hpp"
#include "kernels/cpu/lstm_cell.hpp"
#include "sida/kernels/cpu.hpp"

#ifdef SIDA_HAVE_AVX2
#include <cpuid.h>
#endif

namespace sida::inline v0 {

namespace {

constexpr std::array kIsas = {CpuIsa::portable, CpuIsa::avx2, CpuIsa::avx512};  // each runs where its followers do

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

kernels::WeightType weight_type(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::f16: return kernels::kWeightF16;
    case Dtype::bf16: return kernels::kWeightBf16;
    case Dtype::f32: break;
  }
  return kernels::kWeightF32;
}

}  // namespace

std::string_view to_string(CpuIsa isa) noexcept {
  switch (isa) {
    case CpuIsa::portable: return "portable";
    case CpuIsa::avx2: return "avx2";
    case CpuIsa::avx512: return "avx512";
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
  static std::size_t const count = runs_avx512() ? 3 : runs_avx2() ? 2 : 1;
  return std::span(kIsas).first(count);
}

bool is_runnable(CpuIsa isa) noexcept {
  auto const isas = runnable_cpu_isas();
  return std::find(isas.begin(), isas.end(), isa) != isas.end();
}

CpuIsa best_cpu_isa() noexcept { return runnable_cpu_isas().back(); }

void gemm_nt(CpuIsa isa, GemmArgs const& args) noexcept {
  kernels::GemmNt const plain = {args.x,        args.x_stride, args.w, args.w_stride, args.y,
                                 args.y_stride, args.m,        args.n, args.k,        weight_type(args.w_dtype)};
#ifdef SIDA_HAVE_AVX2
  if (isa == CpuIsa::avx512) return kernels::gemm_nt_avx512(plain);
  if (isa == CpuIsa::avx2) return kernels::gemm_nt_avx2(plain);
#endif
  static_cast<void>(isa);
  kernels::gemm_nt_portable(plain);
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
