#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "sida/core/api.hpp"

namespace sida::inline v0 {

/// Element types of weights.
enum class Dtype : std::uint8_t { f32, f16, bf16 };

constexpr std::size_t size_bytes(Dtype dtype) noexcept { return dtype == Dtype::f32 ? 4 : 2; }
/// "fp32", "fp16", "bf16".
SIDA_API std::string_view to_string(Dtype dtype) noexcept;

/// Storage of a bfloat16: the upper half of a float. Arithmetic happens in float.
struct bf16 {
  std::uint16_t bits = 0;
};

/// Storage of an IEEE binary16. Arithmetic happens in float.
struct fp16 {
  std::uint16_t bits = 0;
};

constexpr float to_float(float value) noexcept { return value; }
constexpr float to_float(bf16 value) noexcept { return std::bit_cast<float>(std::uint32_t{value.bits} << 16); }

constexpr float to_float(fp16 value) noexcept {
  std::uint32_t const sign = std::uint32_t{value.bits & 0x8000U} << 16;
  std::uint32_t const exponent = value.bits >> 10 & 0x1FU;
  std::uint32_t const mantissa = value.bits & 0x3FFU;
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000U | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  // Subnormal: mantissa * 2^-24 is exact in float.
  float const magnitude = static_cast<float>(mantissa) * 0x1p-24F;
  return sign != 0 ? -magnitude : magnitude;
}

/// Round to nearest, ties to even; NaN stays NaN.
constexpr bf16 to_bf16(float value) noexcept {
  auto const bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return {static_cast<std::uint16_t>(bits >> 16 | 0x40U)};
  return {static_cast<std::uint16_t>((bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16)};
}

/// Round to nearest, ties to even; NaN stays NaN, what is too large becomes infinity.
constexpr fp16 to_fp16(float value) noexcept {
  auto const bits = std::bit_cast<std::uint32_t>(value);
  auto const sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000U);
  std::uint32_t const magnitude = bits & 0x7FFFFFFFU;
  auto const with_sign = [sign](std::uint32_t half) { return fp16{static_cast<std::uint16_t>(sign | half)}; };
  if (magnitude > 0x7F800000U) return with_sign(0x7E00U);
  if (magnitude >= 0x477FF000U) return with_sign(0x7C00U);  // half way from the largest to 65536, or beyond
  if (magnitude < 0x38800000U) {                            // subnormal: the addition rounds to a multiple of 2^-24
    return with_sign(std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3F000000U);
  }
  return with_sign((magnitude - 0x38000000U + 0xFFFU + (magnitude >> 13 & 1U)) >> 13);
}

template <class T>
inline constexpr Dtype dtype_of = Dtype::f32;
template <>
inline constexpr Dtype dtype_of<bf16> = Dtype::bf16;
template <>
inline constexpr Dtype dtype_of<fp16> = Dtype::f16;

/// Calls `f` with a value of the C++ type that `dtype` names.
template <class F>
decltype(auto) with_element(Dtype dtype, F const& f) {
  switch (dtype) {
    case Dtype::f16: return f(fp16{});
    case Dtype::bf16: return f(bf16{});
    case Dtype::f32: break;
  }
  return f(float{});
}

}  // namespace sida::inline v0
