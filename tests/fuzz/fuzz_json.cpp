#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "io/json.hpp"

/// Both ways to parse agree on what is acceptable, and the getters take every value.
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  namespace json = sida::io_detail;
  std::string_view const text(reinterpret_cast<char const*>(data), size);
  auto const document = json::parse_json(text, "fuzz");
  std::size_t members = 0;
  bool keys_in_place = true;
  auto const status = json::for_each_member(
      text, "fuzz", {}, [&](std::string const& key, json::Json const& value, std::size_t offset) -> sida::Status {
        ++members;
        keys_in_place = keys_in_place && offset > 0 && offset <= text.size() && text[offset - 1] == '"';
        (void)json::as_uint(value, key).status();
        (void)json::as_int(value, key).status();
        return {};
      });
  if (!keys_in_place) std::abort();
  bool const is_object = document && document->is_object();
  if (is_object != static_cast<bool>(status)) std::abort();
  if (!is_object) return 0;
  if (members != document->size()) std::abort();
  for (auto const& [key, value] : document->items()) {
    (void)json::get_uint(*document, key, "fuzz").status();
    (void)json::get_int(*document, key, "fuzz").status();
    (void)json::get_number(*document, key, "fuzz").status();
    (void)json::get_bool(*document, key, "fuzz").status();
    (void)json::get_string(*document, key, "fuzz").status();
  }
  return 0;
}
