#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "cli/npy.hpp"

/// What is accepted has as many bytes as its shape says.
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const array = sida::cli::parse_npy(std::as_bytes(std::span(data, size)), "fuzz");
  if (!array) return 0;
  std::uint64_t bytes = size_bytes(array->type);
  for (auto const dimension : array->shape) bytes *= dimension;
  if (bytes != array->bytes.size() || bytes > size) std::abort();
  return 0;
}
