// Compiled with -mavx2 -mfma -mf16c: keep it free of anything that another file could instantiate too.
#include "kernels/cpu/gemm_nt_body.hpp"

namespace sida::kernels {
namespace {

struct Avx2 {
  using Floats = __m256;
  static constexpr int64_t kLanes = 8;
  static constexpr TileShape kTile = {3, 4};  // 12 of 16 registers

  static __m256 zero() { return _mm256_setzero_ps(); }
  static __m256 load(float const* from) { return _mm256_loadu_ps(from); }
  static __m256 load_f16(uint16_t const* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<__m128i const*>(from)));
  }
  static __m256 load_bf16(uint16_t const* from) {
    __m256i const wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(from)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  static __m256 multiply_add(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }

  static constexpr int kSumRows = 2;
  static void sum4(__m256 const (&rows)[kSumRows][4], __m128 (&totals)[kSumRows]) {
    __m256 column[4];  // four lanes of each row
    SIDA_UNROLLED for (int c = 0; c < 4; ++c) column[c] = add_halves(rows[0][c], rows[1][c]);
    __m256 const sums = _mm256_hadd_ps(_mm256_hadd_ps(column[0], column[1]), _mm256_hadd_ps(column[2], column[3]));
    totals[0] = _mm256_castps256_ps128(sums);
    totals[1] = _mm256_extractf128_ps(sums, 1);
  }

 private:
  /// Lanes l and l + 4 of a, then those of b.
  static __m256 add_halves(__m256 a, __m256 b) {
    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
  }
};

}  // namespace

void gemm_nt_avx2(GemmNt const& args) noexcept { gemm_nt_body<Avx2>(args); }

}  // namespace sida::kernels
