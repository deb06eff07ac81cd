#pragma once

#include <map>
#include <string>
#include <string_view>

#include "sida/core/result.hpp"

namespace sida::inline v0::io_detail {

/// Tensor name to the name of its shard, a file beside the index.
using SafetensorsIndex = std::map<std::string, std::string>;

/// The "weight_map" of a model.safetensors.index.json. `name` is the file's, for messages.
/// @return corrupt, with the byte offset, when it is not JSON or has none, or when a shard is not a plain file name.
Result<SafetensorsIndex> parse_safetensors_index(std::string_view text, std::string const& name);

}  // namespace sida::inline v0::io_detail
