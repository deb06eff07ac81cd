#pragma once

#include <cstdint>
#include <cstring>

#include "sida/core/matrix.hpp"

namespace sida::inline v0::model_detail {

/// Four rows of four elements.
inline void transpose_4x4(float const* from, std::int64_t from_stride, float* to, std::int64_t to_stride) noexcept {
  typedef float Four __attribute__((vector_size(16)));  // as GCC and Clang have it on every processor
  Four rows[4];
  for (int r = 0; r < 4; ++r) std::memcpy(&rows[r], from + r * from_stride, sizeof(Four));
  Four const low01 = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
  Four const low23 = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
  Four const high01 = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
  Four const high23 = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
  rows[0] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
  rows[1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
  rows[2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
  rows[3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
  for (int r = 0; r < 4; ++r) std::memcpy(to + r * to_stride, &rows[r], sizeof(Four));
}

/// to[c, r] = from[r, c]
inline void transpose(Matrix<float const> from, Matrix<float> to) noexcept {
  std::int64_t const rows = from.rows / 4 * 4;
  std::int64_t const cols = from.cols / 4 * 4;
  for (std::int64_t r = 0; r < rows; r += 4) {
    for (std::int64_t c = 0; c < cols; c += 4) {
      transpose_4x4(from.data + r * from.stride + c, from.stride, to.data + c * to.stride + r, to.stride);
    }
  }
  for (std::int64_t r = 0; r < from.rows; ++r) {
    for (std::int64_t c = r < rows ? cols : 0; c < from.cols; ++c) to(c, r) = from(r, c);
  }
}

}  // namespace sida::inline v0::model_detail
