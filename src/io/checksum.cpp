#include "io/checksum.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace sida::inline v0::io_detail {

std::uint64_t xxh3_64(std::span<std::byte const> bytes) noexcept { return XXH3_64bits(bytes.data(), bytes.size()); }

}  // namespace sida::inline v0::io_detail
