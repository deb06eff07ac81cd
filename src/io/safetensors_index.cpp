#include "io/safetensors_index.hpp"

#include <cstddef>

#include "io/json.hpp"
#include "io/safetensors_limits.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0::io_detail {
namespace {

/// A shard is a file of the index's own folder: an index must not reach outside of it.
bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name.find_first_of(std::string_view("/\\\0", 3)) == name.npos &&
         name.find("..") == name.npos && name != ".";
}

}  // namespace

Result<SafetensorsIndex> parse_safetensors_index(std::string_view text, std::string const& path) {
  SafetensorsIndex weights;
  bool has_map = false;
  JsonLimits const limits{.max_bytes = kSafetensorsMaxJsonBytes, .max_values = std::size_t{1} << 22};
  auto const add_member = [&](std::string const& key, Json const& value, std::size_t offset) -> Status {
    if (key != "weight_map") return {};
    std::string const where = path + ": weight_map (byte " + std::to_string(offset) + ")";
    if (!value.is_object()) return Error(Errc::corrupt, where + " is not an object");
    has_map = true;
    for (auto const& [tensor, shard] : value.items()) {
      std::string const* const name = shard.get_ptr<std::string const*>();
      if (name == nullptr || !is_plain_file_name(*name)) {
        return Error(Errc::corrupt, where + ": tensor " + in_quotes(tensor) + ": shard " +
                                        (name == nullptr ? "is not a string" : in_quotes(*name) + " is no file name"));
      }
      weights.emplace(tensor, *name);
    }
    return {};
  };
  SIDA_TRY(for_each_member(text, path, limits, add_member));
  if (!has_map) return Error(Errc::corrupt, path + ": no weight_map (byte 0)");
  return weights;
}

}  // namespace sida::inline v0::io_detail
