// Compiled with gemm_nt_avx512.cpp's flags and -mavx512bf16: keep it free of anything that another file could
// instantiate too.
#include "kernels/cpu/gemm_nt_avx512.hpp"

namespace sida::kernels {
namespace {

/// Products of bf16 pairs: each of 16 lanes adds up two products a step.
struct DotBf16 {
  using Vector = Avx512;
  using Input = uint16_t;
  using Element = uint16_t;
  static constexpr int64_t kStep = 32;
  static constexpr TileShape kTile = Avx512::kTile;
  static __m512bh load(uint16_t const* from) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(from)); }
  static __m512bh load_input(uint16_t const* from) { return load(from); }
  static __m512 multiply_add(__m512bh x, __m512bh w, __m512 sum) { return _mm512_dpbf16_ps(sum, x, w); }
};

/// `count` (1 to 32) elements of a row; zeros after them.
void pack_step(float const* from, int64_t count, uint16_t* to) {
  auto const mask = static_cast<__mmask32>(0xffffffffU >> (32 - count));
  __m512 const low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from);
  __m512 const high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), from + 16);
  _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
}

}  // namespace

void gemm_nt_avx512_bf16(GemmNt const& args) noexcept { run<DotBf16>(args); }

void pack_rows_avx512_bf16(PackRows const& args) noexcept {
  int64_t const stride = (args.k + kPackedDepth - 1) / kPackedDepth * kPackedDepth;
  for (int64_t r = 0; r < args.m; ++r) {
    float const* const from = args.x + r * args.x_stride;
    uint16_t* const to = args.to + r * stride + args.first;
    for (int64_t c = 0; c < args.count; c += kPackedDepth) {
      int64_t const left = args.count - c;
      pack_step(from + c, left < kPackedDepth ? left : kPackedDepth, to + c);
    }
  }
}

}  // namespace sida::kernels
