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

  // Registers meet in pairs, so that no lane of an addition is wasted.
  static constexpr int kSumRows = 4;
  static void sum4(__m512 const (&rows)[kSumRows][4], __m128 (&totals)[kSumRows]) {
    __m512 column[4];  // four lanes of each row
    SIDA_UNROLLED for (int c = 0; c < 4; ++c) {
      column[c] = add_quarters(add_halves(rows[0][c], rows[1][c]), add_halves(rows[2][c], rows[3][c]));
    }
    __m512 const sums = add_pairs(add_pairs(column[0], column[1]), add_pairs(column[2], column[3]));
    totals[0] = _mm512_castps512_ps128(sums);
    totals[1] = _mm512_extractf32x4_ps(sums, 1);
    totals[2] = _mm512_extractf32x4_ps(sums, 2);
    totals[3] = _mm512_extractf32x4_ps(sums, 3);
  }

 private:
  /// Lanes l and l + 8 of a, then those of b.
  static __m512 add_halves(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  }
  /// Lanes l and l + 4 of each half.
  static __m512 add_quarters(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  }
  /// Neighbours, in each quarter those of a before those of b.
  static __m512 add_pairs(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
  }
};

}  // namespace
}  // namespace sida::kernels
