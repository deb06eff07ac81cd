#include "sida/core/dtype.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include <gtest/gtest.h>

namespace {

using sida::bf16;
using sida::fp16;

std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }

/// A float format by its definition: sign, `exponent_bits`, `mantissa_bits`; in double, where all is exact.
double by_definition(std::uint32_t bits, int exponent_bits, int mantissa_bits) {
  std::uint32_t const mantissa = bits & ((1U << mantissa_bits) - 1);
  int const exponent = static_cast<int>(bits >> mantissa_bits & ((1U << exponent_bits) - 1));
  double const sign = (bits >> (exponent_bits + mantissa_bits) & 1U) != 0 ? -1.0 : 1.0;
  int const bias = (1 << (exponent_bits - 1)) - 1;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  }
  double const fraction = exponent == 0 ? mantissa : mantissa + std::ldexp(1.0, mantissa_bits);
  return sign * std::ldexp(fraction, (exponent == 0 ? 1 : exponent) - bias - mantissa_bits);
}

template <class T>
void expect_every_pattern_converts(int exponent_bits, int mantissa_bits) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    float const actual = sida::to_float(T{static_cast<std::uint16_t>(bits)});
    double const expected = by_definition(bits, exponent_bits, mantissa_bits);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(actual)) << std::hex << bits;
    } else {
      ASSERT_EQ(static_cast<double>(actual), expected) << std::hex << bits;
      ASSERT_EQ(std::signbit(actual), std::signbit(expected)) << std::hex << bits;
    }
  }
}

TEST(Bf16, EveryPatternHasItsValue) { expect_every_pattern_converts<bf16>(8, 7); }
TEST(Fp16, EveryPatternHasItsValue) { expect_every_pattern_converts<fp16>(5, 10); }

#ifdef __FLT16_MAX__
TEST(Fp16, AgreesWithTheCompiler) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    auto const pattern = static_cast<std::uint16_t>(bits);
    auto const expected = static_cast<float>(std::bit_cast<_Float16>(pattern));
    if (!std::isnan(expected)) {
      ASSERT_EQ(bits_of(sida::to_float(fp16{pattern})), bits_of(expected)) << bits;
    }
  }
}
#endif

TEST(Fp16, EveryPatternSurvivesTheWayThere) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    auto const pattern = static_cast<std::uint16_t>(bits);
    float const value = sida::to_float(fp16{pattern});
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(sida::to_float(sida::to_fp16(value)))) << std::hex << bits;
    } else {
      ASSERT_EQ(sida::to_fp16(value).bits, pattern) << std::hex << bits;
    }
  }
}

TEST(ToFp16, RoundsToNearestEven) {
  for (std::uint32_t low = 0; low < 0x7BFF; ++low) {  // every pair of finite neighbours, and what lies between
    auto const below = static_cast<std::uint16_t>(low);
    auto const above = static_cast<std::uint16_t>(low + 1);
    float const half_way = 0.5F * (sida::to_float(fp16{below}) + sida::to_float(fp16{above}));  // exact
    ASSERT_EQ(sida::to_fp16(half_way).bits, low % 2 == 0 ? below : above) << low;
    ASSERT_EQ(sida::to_fp16(std::nextafterf(half_way, 0.0F)).bits, below) << low;
    ASSERT_EQ(sida::to_fp16(std::nextafterf(half_way, 1e9F)).bits, above) << low;
    ASSERT_EQ(sida::to_fp16(-half_way).bits, 0x8000 | (low % 2 == 0 ? below : above)) << low;
  }
  EXPECT_EQ(sida::to_fp16(65519.996F).bits, 0x7BFF);
  EXPECT_EQ(sida::to_fp16(65520.0F).bits, 0x7C00) << "overflows to infinity";
  EXPECT_EQ(sida::to_fp16(-std::numeric_limits<float>::infinity()).bits, 0xFC00);
}

TEST(Bf16, EveryPatternSurvivesTheWayThere) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    auto const pattern = static_cast<std::uint16_t>(bits);
    float const value = sida::to_float(bf16{pattern});
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(sida::to_float(sida::to_bf16(value)))) << std::hex << bits;
    } else {
      ASSERT_EQ(sida::to_bf16(value).bits, pattern) << std::hex << bits;
    }
  }
}

/// Nearest of the two neighbours in double, ties to the even pattern; works for finite values below the largest bf16.
std::uint16_t round_in_double(float value) {
  auto const below = static_cast<std::uint16_t>(bits_of(value) >> 16);  // towards zero
  auto const above = static_cast<std::uint16_t>(below + 1);
  double const magnitude = std::fabs(static_cast<double>(value));
  double const low = std::fabs(by_definition(below & 0x7FFFU, 8, 7));
  double const high = (above & 0x7FFFU) == 0x7F80U ? 0x1p128 : by_definition(above & 0x7FFFU, 8, 7);
  if (magnitude - low != high - magnitude) return magnitude - low < high - magnitude ? below : above;
  return (below & 1U) == 0 ? below : above;
}

TEST(ToBf16, RoundsToNearestEven) {
  std::mt19937 random(7);
  for (int i = 0; i < 300000; ++i) {
    std::uint32_t bits = static_cast<std::uint32_t>(random());
    if (i % 3 == 0) bits = (bits & 0xFFFF0000U) | 0x8000U;                  // exactly half-way
    if (i % 3 == 1) bits = (bits & 0xFFFF0000U) | (0x7FFFU + (bits & 2U));  // one off half-way
    auto const value = std::bit_cast<float>(bits);
    if (!std::isfinite(value)) continue;
    ASSERT_EQ(sida::to_bf16(value).bits, round_in_double(value)) << std::hex << bits;
  }
}

TEST(ToBf16, KeepsSpecialValues) {
  float const infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(sida::to_bf16(infinity).bits, 0x7F80);
  EXPECT_EQ(sida::to_bf16(-infinity).bits, 0xFF80);
  EXPECT_EQ(sida::to_bf16(0.0F).bits, 0x0000);
  EXPECT_EQ(sida::to_bf16(-0.0F).bits, 0x8000);
  EXPECT_EQ(sida::to_bf16(std::numeric_limits<float>::max()).bits, 0x7F80) << "overflows to infinity";
  // A NaN whose payload is all in the lower half must not become infinity.
  EXPECT_TRUE(std::isnan(sida::to_float(sida::to_bf16(std::bit_cast<float>(0x7F800001U)))));
  EXPECT_TRUE(std::isnan(sida::to_float(sida::to_bf16(std::bit_cast<float>(0xFFFFFFFFU)))));
}

TEST(Dtype, KnowsSizesAndNames) {
  EXPECT_EQ(size_bytes(sida::Dtype::f32), sizeof(float));
  EXPECT_EQ(size_bytes(sida::Dtype::f16), sizeof(fp16));
  EXPECT_EQ(size_bytes(sida::Dtype::bf16), sizeof(bf16));
  EXPECT_EQ(to_string(sida::Dtype::bf16), "bf16");
  EXPECT_EQ(sida::dtype_of<float>, sida::Dtype::f32);
  EXPECT_EQ(sida::dtype_of<bf16>, sida::Dtype::bf16);
  EXPECT_EQ(sida::dtype_of<fp16>, sida::Dtype::f16);
}

}  // namespace
