#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "io/safetensors_index.hpp"

/// Whatever is accepted names files of the index's own folder.
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  std::string_view const text(reinterpret_cast<char const*>(data), size);
  auto const index = sida::io_detail::parse_safetensors_index(text, "fuzz");
  if (!index) {
    if (index.message().find("fuzz") == std::string_view::npos) std::abort();  // a message names the file
    return 0;
  }
  for (auto const& [tensor, shard] : *index) {
    if (shard.empty() || shard == "." || shard == ".." || shard.find('/') != shard.npos ||
        shard.find('\0') != shard.npos) {
      std::abort();
    }
  }
  return 0;
}
