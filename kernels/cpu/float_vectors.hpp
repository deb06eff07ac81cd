#pragma once

#include <stdint.h>
#include <string.h>

// For a lambda that is compiled for whole vectors and for what is left.
#define SIDA_INLINED __attribute__((always_inline))

/// Vectors of floats that GCC and Clang share, as wide as the instruction set that an including file is compiled for.
/// All has internal linkage.
namespace sida::kernels {
namespace {

#ifdef __AVX2__
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif
typedef float Floats __attribute__((vector_size(kVectorBytes)));
typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));
inline constexpr int64_t kWidth = kVectorBytes / sizeof(float);

inline Floats all(float x) { return x - Floats{}; }

/// 0, 1, 2, …
inline Floats lanes() {
  Floats x = {};
  for (int64_t lane = 0; lane < kWidth; ++lane) x[lane] = static_cast<float>(lane);
  return x;
}

/// e^x to about 2 ulp, for x cut to [-87, 87], where neither end leaves the normal numbers. NaN stays NaN. After
/// Cephes' expf: x = n ln 2 + r, a polynomial for e^r, and n into the exponent.
inline Floats exp_cut(Floats x) {
  x = x < all(-87.0F) ? all(-87.0F) : x;
  x = x > all(87.0F) ? all(87.0F) : x;
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: a sum with it is rounded to a whole number, its low bits
  Floats const rounded = x * 1.44269504F + kRound;
  Floats const n = rounded - kRound;
  Floats const r = x - n * 0.693359375F + n * 2.12194440e-4F;
  Floats p = r * 1.9875691500e-4F + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1.0F;
  Words const exponent = (__builtin_bit_cast(Words, rounded) << 23) + (127U << 23U);
  return p * __builtin_bit_cast(Floats, exponent);
}

/// Calls f(first, count) for `count` values, kWidth of them at a time, and for those that are left.
template <class F>
inline void for_vectors(int64_t count, F const& f) {
  int64_t j = 0;
  for (; j + kWidth <= count; j += kWidth) f(j, kWidth);
  if (j < count) f(j, count - j);
}

/// `count` (at most kWidth) values; zeros after them.
inline Floats load(float const* from, int64_t count) {
  Floats x = {};
  memcpy(&x, from, static_cast<size_t>(count) * sizeof(float));
  return x;
}

inline void store(Floats x, float* to, int64_t count) { memcpy(to, &x, static_cast<size_t>(count) * sizeof(float)); }

}  // namespace
}  // namespace sida::kernels
