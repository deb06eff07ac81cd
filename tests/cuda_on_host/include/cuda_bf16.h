#pragma once

// Stands in for CUDA's bfloat16: the type and its exact conversions, no arithmetic.

#include <cuda_runtime.h>

struct __nv_bfloat16 {
  __nv_bfloat16() = default;

 protected:
  friend __nv_bfloat16 __ushort_as_bfloat16(unsigned short);
  friend unsigned short __bfloat16_as_ushort(__nv_bfloat16);
  unsigned short bits_;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  __nv_bfloat16 value;
  value.bits_ = bits;
  return value;
}
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits_; }

inline float __bfloat162float(__nv_bfloat16 value) {
  return __uint_as_float(static_cast<unsigned>(__bfloat16_as_ushort(value)) << 16);
}
/// To the nearest, ties to even; NaN becomes 0x7fff.
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  unsigned const bits = __float_as_uint(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return __ushort_as_bfloat16(0x7fff);
  return __ushort_as_bfloat16(static_cast<unsigned short>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16));
}
inline __nv_bfloat16 __float2bfloat16(float value) { return __float2bfloat16_rn(value); }
inline float2 __bfloat1622float2(__nv_bfloat162 value) {
  return {__bfloat162float(value.x), __bfloat162float(value.y)};
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
