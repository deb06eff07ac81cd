#pragma once

// Stands in for CUDA's bfloat16: the type and its rounding.

#include <cuda_runtime.h>

struct __nv_bfloat16 {
  unsigned short bits;
};
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits; }
/// To the nearest, ties to even; NaN becomes 0x7fff.
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  unsigned const bits = __float_as_uint(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return {0x7fff};
  return {static_cast<unsigned short>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16)};
}
