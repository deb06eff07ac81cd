#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace sida::inline v0::detail {

/// "[3, 4]", for messages.
inline std::string shape_text(std::span<std::int64_t const> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

inline std::string shape_text(std::int64_t rows, std::int64_t cols) { return shape_text(std::array{rows, cols}); }

}  // namespace sida::inline v0::detail
