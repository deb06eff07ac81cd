#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/output_file.hpp"
#include "sida/core/result.hpp"

namespace sida::cli {

/// Element types of the .npy files that sida reads; it writes `u16` and `f32`.
enum class NpyType : std::uint8_t { u8, u16, i32, f32 };

constexpr std::size_t size_bytes(NpyType type) noexcept {
  return type == NpyType::u8 ? 1 : type == NpyType::u16 ? 2 : 4;
}
template <class T>
inline constexpr NpyType npy_type_of = NpyType::u8;
template <>
inline constexpr NpyType npy_type_of<std::uint16_t> = NpyType::u16;
template <>
inline constexpr NpyType npy_type_of<std::int32_t> = NpyType::i32;
template <>
inline constexpr NpyType npy_type_of<float> = NpyType::f32;

/// Writes a .npy file (format 1.0, C order) row after row; the number of rows is filled in at the end, so it isn't
/// known before. The file appears whole, or not at all. Move-only.
class NpyWriter {
 public:
  /// `row_shape`: all dimensions but the first; may be empty. @return io, also for an output that cannot seek, such as
  /// a pipe.
  static Result<NpyWriter> create(std::string const& path, NpyType type, std::vector<std::uint64_t> row_shape);

  /// Whole rows. @return invalid_argument when `values` are of another type, or not a multiple of a row; io.
  template <class T>
  Status append(std::span<T const> values) {
    return append_bytes(npy_type_of<T>, std::as_bytes(values));
  }
  /// Writes the shape, and all of it out; then as `OutputFile`. @return io.
  Status finish();
  Status publish() { return file_.publish(); }
  /// Both.
  Status commit();

  std::uint64_t rows() const noexcept { return bytes_ / row_bytes_; }

 private:
  NpyWriter(OutputFile file, NpyType type, std::vector<std::uint64_t> row_shape);
  Status append_bytes(NpyType type, std::span<std::byte const> bytes);

  OutputFile file_;
  NpyType type_;
  std::vector<std::uint64_t> row_shape_;
  std::uint64_t row_bytes_;
  std::uint64_t bytes_ = 0;
};

/// A .npy file in memory.
struct NpyArray {
  NpyType type = NpyType::f32;
  std::vector<std::uint64_t> shape;
  std::vector<std::byte> bytes;  ///< little-endian, C order

  /// Precondition: `type` is T's.
  template <class T>
  std::span<T const> as() const& noexcept {
    return {reinterpret_cast<T const*>(bytes.data()), bytes.size() / sizeof(T)};
  }
  template <class T>
  std::span<T const> as() const&& = delete;  // would dangle
};

/// Parses the content of a .npy file, format 1.0 to 3.0. `name` is for messages.
/// @return corrupt; unsupported: other element types, Fortran order.
Result<NpyArray> parse_npy(std::span<std::byte const> file, std::string const& name);
/// @return also not_found, io.
Result<NpyArray> read_npy(std::string const& path);

}  // namespace sida::cli
