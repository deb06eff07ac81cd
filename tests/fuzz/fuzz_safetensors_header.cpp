#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "sida/io/safetensors.hpp"

/// Whatever is accepted lies in the file, in order of name.
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const file = std::as_bytes(std::span(data, size));
  auto const header = sida::parse_safetensors_header(file, size, "fuzz");
  if (!header) return 0;
  std::uint64_t covered = 0;
  for (std::size_t i = 0; i < header->entries.size(); ++i) {
    auto const& entry = header->entries[i];
    if (entry.file_offset > size || entry.info.size_bytes > size - entry.file_offset) std::abort();
    if (i > 0 && header->entries[i - 1].info.name >= entry.info.name) std::abort();
    covered += entry.info.size_bytes;
    (void)entry.info.dtype();
  }
  if (covered > size) std::abort();
  return 0;
}
