// Vectors of AVX-512: included by files that are compiled for it. All has internal linkage.
#pragma once

#include "kernels/cpu/gemm_nt_body.hpp"

namespace sida::kernels {
namespace {

/// The order of one sum: as with 8 lanes (gemm_nt.hpp), after lane l has been added to lane l + 8.
struct Avx512 {
  using Floats = __m512;
  static constexpr int64_t kLanes = 16;
  static constexpr TileShape kTile = {6, 4};  // 24 of 32 registers

  static __m512 zero() { return _mm512_setzero_ps(); }
  static __m512 load(float const* from) { return _mm512_loadu_ps(from); }
  static __m512 load_f16(uint16_t const* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(from)));
  }
  static __m512 load_bf16(uint16_t const* from) {
    __m512i const wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(from)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  static __m512 multiply_add(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }

  static __m128 fold(__m512 lanes) {
    __m256 const halves = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps(lanes, 1));
    return _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
  }
};

}  // namespace
}  // namespace sida::kernels
