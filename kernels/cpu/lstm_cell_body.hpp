#pragma once

#include <stdint.h>
#include <string.h>

#include "kernels/cpu/lstm_cell.hpp"

/// The step itself, which each file for an instruction set includes and compiles for itself, in the vectors that GCC
/// and Clang share. Library calls of exp and tanh were a third to a half of a hash function's
/// time.
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

inline Floats sigmoid(Floats x) { return 1.0F / (1.0F + exp_cut(-x)); }
inline Floats hyperbolic_tangent(Floats x) { return 1.0F - 2.0F / (1.0F + exp_cut(2.0F * x)); }

/// `count` (at most kWidth) values; zeros after them.
inline Floats load(float const* from, int64_t count) {
  Floats x = {};
  memcpy(&x, from, static_cast<size_t>(count) * sizeof(float));
  return x;
}

inline void store(Floats x, float* to, int64_t count) { memcpy(to, &x, static_cast<size_t>(count) * sizeof(float)); }

/// Units [j, j + count).
inline void step_units(LstmCell const& a, int64_t j, int64_t count) {
  auto const gate = [&](int64_t which) {
    int64_t const at = which * a.hidden + j;
    return load(a.from_input + at, count) + load(a.from_state + at, count);
  };
  Floats const cell = sigmoid(gate(1)) * load(a.cell + j, count) + sigmoid(gate(0)) * hyperbolic_tangent(gate(2));
  store(cell, a.cell + j, count);
  store(sigmoid(gate(3)) * hyperbolic_tangent(cell), a.state + j, count);
}

inline void lstm_cell_body(LstmCell const& a) {
  int64_t j = 0;
  for (; j + kWidth <= a.hidden; j += kWidth) step_units(a, j, kWidth);
  if (j < a.hidden) step_units(a, j, a.hidden - j);
}

}  // namespace
}  // namespace sida::kernels
