#pragma once

#include <cstdint>
#include <string_view>

namespace sida::cli {

/// 64 well-mixed bits of a seed and a counter (SplitMix64): any element can be made alone, so threads share out rows
/// without changing a byte.
constexpr std::uint64_t random_bits(std::uint64_t seed, std::uint64_t index) noexcept {
  std::uint64_t z = seed + (index + 1) * 0x9E3779B97F4A7C15U;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

/// A seed for what has this name, apart from those of other names.
constexpr std::uint64_t seed_of(std::uint64_t seed, std::string_view name) noexcept {
  std::uint64_t hash = 0xCBF29CE484222325U;  // FNV-1a
  for (char const c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  return random_bits(random_bits(seed, 0) ^ hash, 1);
}

/// Nearly normal integers: the sum of four uniform 16-bit numbers, less its mean. Much cheaper than a normal deviate,
/// and a weight needs no tail beyond 3.46 standard deviations.
constexpr std::int32_t bell(std::uint64_t seed, std::uint64_t index) noexcept {
  std::uint64_t const bits = random_bits(seed, index);
  constexpr std::uint64_t kEvenLanes = 0x0000FFFF0000FFFFU;
  std::uint64_t const pairs = (bits & kEvenLanes) + (bits >> 16 & kEvenLanes);
  return static_cast<std::int32_t>((pairs & 0xFFFFFFFFU) + (pairs >> 32)) - 2 * 65535;
}
/// The standard deviation of `bell`: sqrt(4 (65536^2 - 1) / 12).
inline constexpr float kBellDeviation = 37837.227F;

}  // namespace sida::cli
