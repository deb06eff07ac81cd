#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "sida/core/result.hpp"

namespace sida::inline v0::io_detail {

/// Bits of one element of a safetensors dtype ("BF16"), or 0 when the format has none of that name.
unsigned dtype_bits(std::string_view dtype_name) noexcept;

/// Bytes of a tensor. No dimension is negative. `where` names file, tensor and place, for messages.
/// @return unsupported for an unknown dtype; corrupt when the size overflows or is not a whole number of bytes.
Result<std::uint64_t> tensor_bytes(std::string_view dtype_name, std::span<std::int64_t const> shape,
                                   std::string const& where);

}  // namespace sida::inline v0::io_detail
