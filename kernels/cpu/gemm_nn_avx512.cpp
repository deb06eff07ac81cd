// Compiled with -mavx512f -mavx512vl -mavx512dq -mavx512bw: keep it free of anything that another file could
// instantiate too.
#include "kernels/cpu/gemm_nn_body.hpp"

namespace sida::kernels {
namespace {

struct Avx512 {
  using Floats = __m512;
  static constexpr int64_t kLanes = 16;
  static constexpr int kRows = 6, kVectors = 4;  // 24 of 32 registers

  static __m512 zero() { return _mm512_setzero_ps(); }
  static __m512 broadcast(float x) { return _mm512_set1_ps(x); }
  static __m512 multiply_add(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
  static __mmask16 mask(int64_t count) { return static_cast<__mmask16>(0xffffU >> (kLanes - count)); }
  static __m512 load(float const* from, int64_t count) { return _mm512_maskz_loadu_ps(mask(count), from); }
  static void store(__m512 x, float* to, int64_t count) { _mm512_mask_storeu_ps(to, mask(count), x); }
};

}  // namespace

void gemm_nn_avx512(GemmNn const& args) noexcept { gemm_nn_body<Avx512>(args); }

}  // namespace sida::kernels
