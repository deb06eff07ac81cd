// Compiled with -mavx2 -mfma -mf16c: keep it free of anything that another file could instantiate too.
#include "kernels/cpu/gemm_nn_body.hpp"

namespace sida::kernels {
namespace {

struct Avx2 {
  using Floats = __m256;
  static constexpr int64_t kLanes = 8;
  static constexpr int kRows = 4, kVectors = 2;  // with B's and one of x: 11 of 16 registers

  static __m256 zero() { return _mm256_setzero_ps(); }
  static __m256 broadcast(float x) { return _mm256_set1_ps(x); }
  static __m256 multiply_add(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
  /// The lanes before `count`.
  static __m256i mask(int64_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static __m256 load(float const* from, int64_t count) {
    return count == kLanes ? _mm256_loadu_ps(from) : _mm256_maskload_ps(from, mask(count));
  }
  static void store(__m256 x, float* to, int64_t count) {
    if (count == kLanes) return _mm256_storeu_ps(to, x);
    _mm256_maskstore_ps(to, mask(count), x);
  }
};

}  // namespace

void gemm_nn_avx2(GemmNn const& args) noexcept { gemm_nn_body<Avx2>(args); }

}  // namespace sida::kernels
