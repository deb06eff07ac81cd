#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "sida/core/api.hpp"

namespace sida::inline v0::io_detail {

/// XXH3, 64 bits, seed 0.
SIDA_API std::uint64_t xxh3_64(std::span<std::byte const> bytes) noexcept;

}  // namespace sida::inline v0::io_detail
