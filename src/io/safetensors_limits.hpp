#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "sida/core/result.hpp"

namespace sida::inline v0 {

inline constexpr std::size_t kSafetensorsLengthBytes = 8;
/// The reference implementation's limit of a header.
inline constexpr std::uint64_t kSafetensorsMaxJsonBytes = 100'000'000;

namespace io_detail {

/// Bytes of the JSON that follows the length; checked against the limit and the file's size.
/// `prefix` holds the file's first 8 bytes, or less when the file is shorter. @return corrupt.
Result<std::uint64_t> safetensors_json_bytes(std::span<std::byte const> prefix, std::uint64_t file_bytes,
                                             std::string const& name);

}  // namespace io_detail
}  // namespace sida::inline v0
