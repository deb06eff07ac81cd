#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "sida/core/api.hpp"
#include "sida/core/result.hpp"

/// Guarded JSON for files that may be malformed or hostile. Nothing here throws on bad input. Internal to sida's
/// own libraries: never part of a public header. All functions are free of state, so thread-safe.
namespace sida::inline v0::io_detail {

using Json = nlohmann::json;

struct JsonLimits {
  std::size_t max_bytes = std::size_t{16} << 20;  ///< of the text
  std::size_t max_depth = 16;                     ///< nested objects and arrays; the outermost counts as 1
  std::size_t max_values = std::size_t{1} << 20;  ///< in the document, or in one member for `for_each_member`
};

/// Parses one JSON text. Rejected beside bad syntax and bad UTF-8: a key that occurs twice in one object, anything
/// after the value, a NUL byte, a number beyond double, and what exceeds `limits`. Integers outside of 64 bits
/// become doubles, which the getters below tell from fractions. `name` is the file, for messages.
/// @return corrupt, with `name` and a byte offset.
SIDA_API Result<Json> parse_json(std::string_view text, std::string const& name, JsonLimits const& limits = {});

/// One member of the outermost object. `offset` is the byte just after its key. A failure stops the parse.
using JsonMember = std::function<Status(std::string const& key, Json const& value, std::size_t offset)>;

/// Parses a JSON object and hands over its members one by one in file order, so that only one is in memory.
/// The same rules as `parse_json`. @return corrupt, or what `member` returned.
SIDA_API Status for_each_member(std::string_view text, std::string const& name, JsonLimits const& limits,
                                JsonMember const& member);

/// The value of `key`, or nullptr when `object` is not an object or has no such key. A null counts as absent.
SIDA_API Json const* find_member(Json const& object, std::string_view key) noexcept;

/// The value of `key` in `object`. `name` is the file, for messages.
/// @return not_found without such a key (or when it is null); corrupt when it is of another type, negative,
/// fractional or out of range: the message says which.
SIDA_API Result<std::uint64_t> get_uint(Json const& object, std::string_view key, std::string const& name);
SIDA_API Result<std::int64_t> get_int(Json const& object, std::string_view key, std::string const& name);
SIDA_API Result<double> get_number(Json const& object, std::string_view key, std::string const& name);
SIDA_API Result<bool> get_bool(Json const& object, std::string_view key, std::string const& name);
SIDA_API Result<std::string> get_string(Json const& object, std::string_view key, std::string const& name);

/// The same for a value at hand; `what` names it in messages, such as "config.json: key 'd_model'".
SIDA_API Result<std::uint64_t> as_uint(Json const& value, std::string const& what);
SIDA_API Result<std::int64_t> as_int(Json const& value, std::string const& what);

/// `text` in single quotes, cut to 120 bytes, with anything but printable ASCII escaped: fit for a message.
SIDA_API std::string in_quotes(std::string_view text);

}  // namespace sida::inline v0::io_detail
