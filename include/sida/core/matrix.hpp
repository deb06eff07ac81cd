#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "sida/core/expert_id.hpp"

namespace sida::inline v0 {

/// Non-owning row-major view of memory in `Where`: element (r, c) is data[r * stride + c].
/// The memory space is part of the type, so a host view cannot reach a device function.
template <class T, Tier Where = Tier::host>
struct Matrix {
  T* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;

  constexpr Matrix() = default;
  constexpr Matrix(T* data_, std::int64_t rows_, std::int64_t cols_) noexcept
      : data(data_), rows(rows_), cols(cols_), stride(cols_) {}
  constexpr Matrix(T* data_, std::int64_t rows_, std::int64_t cols_, std::int64_t stride_) noexcept
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}
  /// A mutable view reads as a const one.
  template <class U>
  requires(!std::is_same_v<U, T> && std::is_same_v<std::add_const_t<U>, T>) constexpr Matrix(
      Matrix<U, Where> other) noexcept  // NOLINT(google-explicit-constructor)
      : data(other.data), rows(other.rows), cols(other.cols), stride(other.stride) {}

  /// Rows [first, first + count).
  constexpr Matrix row_range(std::int64_t first, std::int64_t count) const noexcept {
    return {data + first * stride, count, cols, stride};
  }

  /// One row. Host memory only, since it is meant to be dereferenced.
  constexpr std::span<T> row(std::int64_t r) const noexcept requires(Where == Tier::host) {
    return {data + r * stride, static_cast<std::size_t>(cols)};
  }
  constexpr T& operator()(std::int64_t r, std::int64_t c) const noexcept requires(Where == Tier::host) {
    return data[r * stride + c];
  }
};

}  // namespace sida::inline v0
