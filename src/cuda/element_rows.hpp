#pragma once

#include <cstddef>
#include <cstdint>

#include "sida/core/dtype.hpp"

namespace sida::inline v0::cuda {

/// Elements from one row of activations to the next: rows start at multiples of 16 bytes.
constexpr std::int64_t row_stride(Dtype dtype, std::int64_t cols) noexcept {
  auto const pack = static_cast<std::int64_t>(16 / size_bytes(dtype));
  return (cols + pack - 1) / pack * pack;
}

constexpr std::int64_t row_bytes(Dtype dtype, std::int64_t cols) noexcept {
  return row_stride(dtype, cols) * static_cast<std::int64_t>(size_bytes(dtype));
}

}  // namespace sida::inline v0::cuda
