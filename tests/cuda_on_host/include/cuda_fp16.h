#pragma once

// Stands in for CUDA's half precision: the type and its conversions.

#include <cuda_runtime.h>

struct __half {
  unsigned short bits;
};
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half value) { return value.bits; }

inline float __half2float(__half value) {
  unsigned const bits = value.bits;
  unsigned const sign = (bits & 0x8000U) << 16, exponent = (bits >> 10) & 0x1fU, mantissa = bits & 0x3ffU;
  if (exponent == 0x1f) return __uint_as_float(sign | 0x7f800000U | mantissa << 13);
  if (exponent != 0) return __uint_as_float(sign | (exponent + 112) << 23 | mantissa << 13);
  float const magnitude = static_cast<float>(mantissa) * 0x1p-24F;  // zero or subnormal: exact
  return sign != 0 ? -magnitude : magnitude;
}
/// To the nearest, ties to even; NaN becomes 0x7fff.
inline __half __float2half_rn(float value) {
  unsigned const bits = __float_as_uint(value), sign = (bits >> 16) & 0x8000U, magnitude = bits & 0x7fffffffU;
  unsigned result;
  if (magnitude > 0x7f800000U) return {0x7fff};
  if (magnitude >= 0x47800000U) {  // 65536 and beyond
    result = 0x7c00;
  } else if (magnitude < 0x38800000U) {  // a subnormal half: let the addition round its lowest bit into place
    result = __float_as_uint(__uint_as_float(magnitude) + 0.5F) - 0x3f000000U;
  } else {
    result = (magnitude - 0x38000000U + 0xfffU + ((magnitude >> 13) & 1U)) >> 13;
  }
  return {static_cast<unsigned short>(sign | result)};
}
