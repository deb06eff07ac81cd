#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>
#include <utility>

#include "core/shape_text.hpp"
#include "io/json.hpp"
#include "io/safetensors_limits.hpp"
#include "io/tensor_size.hpp"
#include "sida/detail/try.hpp"
#include "sida/io/safetensors.hpp"

namespace sida::inline v0 {
namespace {

using io_detail::as_uint;
using io_detail::find_member;
using io_detail::in_quotes;
using io_detail::Json;

constexpr std::size_t kMaxRank = 32;

/// A tensor's bytes in the data part of the file, and where in the file it says so.
struct Extent {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::size_t entry = 0;
  std::size_t header_offset = 0;
};

class HeaderParser {
 public:
  HeaderParser(std::string const& name, std::uint64_t data_start, std::uint64_t data_bytes)
      : name_(name), data_start_(data_start), data_bytes_(data_bytes) {}

  Status add_member(std::string const& key, Json const& value, std::size_t offset) {
    std::size_t const header_offset = kSafetensorsLengthBytes + offset;
    return key == "__metadata__" ? add_metadata(value, header_offset) : add_tensor(key, value, header_offset);
  }
  Status check_coverage();
  SafetensorsHeader take() &&;

 private:
  Status add_metadata(Json const& value, std::size_t header_offset);
  Status add_tensor(std::string const& key, Json const& value, std::size_t header_offset);
  std::string where(std::string const& tensor, std::size_t header_offset) const {
    return name_ + ": tensor " + in_quotes(tensor) + " (header byte " + std::to_string(header_offset) + ")";
  }

  std::string const& name_;
  std::uint64_t data_start_;
  std::uint64_t data_bytes_;
  SafetensorsHeader header_;
  std::vector<Extent> extents_;
};

Status HeaderParser::add_metadata(Json const& value, std::size_t header_offset) {
  std::string const where = name_ + ": __metadata__ (header byte " + std::to_string(header_offset) + ")";
  if (!value.is_object()) return Error(Errc::corrupt, where + " is not an object");
  for (auto const& [key, text] : value.items()) {
    if (!text.is_string()) return Error(Errc::corrupt, where + ": " + in_quotes(key) + " is not a string");
    header_.metadata.emplace(key, text.get<std::string>());
  }
  return {};
}

Result<std::vector<std::int64_t>> read_shape(Json const* value, std::string const& where) {
  if (value == nullptr || !value->is_array()) return Error(Errc::corrupt, where + ": shape is not an array");
  if (value->size() > kMaxRank) {
    return Error(Errc::unsupported, where + ": " + std::to_string(value->size()) + " dimensions");
  }
  std::vector<std::int64_t> shape;
  for (Json const& element : *value) {
    SIDA_TRY_ASSIGN(std::uint64_t const dimension, as_uint(element, where + ": a dimension"));
    if (dimension > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return Error(Errc::corrupt, where + ": dimension " + std::to_string(dimension) + " is out of range");
    }
    shape.push_back(static_cast<std::int64_t>(dimension));
  }
  return shape;
}

Result<Extent> read_extent(Json const* value, std::uint64_t data_bytes, std::string const& where) {
  if (value == nullptr || !value->is_array() || value->size() != 2) {
    return Error(Errc::corrupt, where + ": data_offsets is not an array of two");
  }
  Extent extent;
  SIDA_TRY_ASSIGN(extent.begin, as_uint((*value)[0], where + ": data_offsets begin"));
  SIDA_TRY_ASSIGN(extent.end, as_uint((*value)[1], where + ": data_offsets end"));
  std::string const text = "[" + std::to_string(extent.begin) + ", " + std::to_string(extent.end) + "]";
  if (extent.begin > extent.end) return Error(Errc::corrupt, where + ": data_offsets " + text + " run backwards");
  if (extent.end > data_bytes) {
    return Error(Errc::corrupt, where + ": data_offsets " + text + " end past the file's " +
                                    std::to_string(data_bytes) + " bytes of data");
  }
  return extent;
}

Status HeaderParser::add_tensor(std::string const& key, Json const& value, std::size_t header_offset) {
  std::string const at = where(key, header_offset);
  if (!value.is_object()) return Error(Errc::corrupt, at + " is not an object");
  Json const* const dtype = find_member(value, "dtype");
  if (dtype == nullptr || !dtype->is_string()) return Error(Errc::corrupt, at + ": dtype is not a string");
  SafetensorsEntry entry;
  entry.info.name = key;
  entry.info.dtype_name = dtype->get<std::string>();
  SIDA_TRY_ASSIGN(entry.info.shape, read_shape(find_member(value, "shape"), at));
  SIDA_TRY_ASSIGN(entry.info.size_bytes, io_detail::tensor_bytes(entry.info.dtype_name, entry.info.shape, at));
  SIDA_TRY_ASSIGN(Extent extent, read_extent(find_member(value, "data_offsets"), data_bytes_, at));
  if (extent.end - extent.begin != entry.info.size_bytes) {
    return Error(Errc::corrupt, at + ": " + entry.info.dtype_name + " of shape " +
                                    detail::shape_text(entry.info.shape) + " takes " +
                                    std::to_string(entry.info.size_bytes) + " bytes, data_offsets give " +
                                    std::to_string(extent.end - extent.begin));
  }
  extent.entry = header_.entries.size();
  extent.header_offset = header_offset;
  entry.file_offset = data_start_ + extent.begin;
  header_.entries.push_back(std::move(entry));
  extents_.push_back(extent);
  return {};
}

/// The format wants the data part covered without holes or overlaps.
Status HeaderParser::check_coverage() {
  std::sort(extents_.begin(), extents_.end(),
            [](Extent const& a, Extent const& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  std::uint64_t covered = 0;
  for (Extent const& extent : extents_) {
    if (extent.begin != covered) {
      std::string const& tensor = header_.entries[extent.entry].info.name;
      return Error(Errc::corrupt,
                   where(tensor, extent.header_offset) + ": data begin at " + std::to_string(extent.begin) +
                       (extent.begin > covered ? ", a gap after " : ", an overlap before ") + std::to_string(covered));
    }
    covered = extent.end;
  }
  if (covered != data_bytes_) {
    return Error(Errc::corrupt, name_ + ": tensors cover " + std::to_string(covered) + " of " +
                                    std::to_string(data_bytes_) + " bytes of data, which start at byte " +
                                    std::to_string(data_start_));
  }
  return {};
}

SafetensorsHeader HeaderParser::take() && {
  std::sort(header_.entries.begin(), header_.entries.end(),
            [](SafetensorsEntry const& a, SafetensorsEntry const& b) { return a.info.name < b.info.name; });
  return std::move(header_);
}

}  // namespace

namespace io_detail {

Result<std::uint64_t> safetensors_json_bytes(std::span<std::byte const> prefix, std::uint64_t file_bytes,
                                             std::string const& name) {
  if (file_bytes < kSafetensorsLengthBytes || prefix.size() < kSafetensorsLengthBytes) {
    return Error(Errc::corrupt,
                 name + ": " + std::to_string(file_bytes) + " bytes, too short for a header length at 0");
  }
  std::uint64_t length = 0;
  for (std::size_t i = kSafetensorsLengthBytes; i-- > 0;)
    length = length << 8 | std::to_integer<std::uint64_t>(prefix[i]);
  if (length > kSafetensorsMaxJsonBytes) {
    return Error(Errc::corrupt, name + ": header of " + std::to_string(length) + " bytes at byte 8, more than " +
                                    std::to_string(kSafetensorsMaxJsonBytes) + "; is this a safetensors file?");
  }
  if (length > file_bytes - kSafetensorsLengthBytes) {
    return Error(Errc::corrupt, name + ": header of " + std::to_string(length) +
                                    " bytes at byte 8 ends past the file's " + std::to_string(file_bytes) +
                                    " bytes; is this a safetensors file, and whole?");
  }
  return length;
}

}  // namespace io_detail

Result<SafetensorsHeader> parse_safetensors_header(std::span<std::byte const> prefix, std::uint64_t file_bytes,
                                                   std::string const& name) {
  SIDA_TRY_ASSIGN(std::uint64_t const json_bytes, io_detail::safetensors_json_bytes(prefix, file_bytes, name));
  std::uint64_t const data_start = kSafetensorsLengthBytes + json_bytes;
  if (prefix.size() < data_start) {
    return Error(Errc::invalid_argument, name + ": only " + std::to_string(prefix.size()) + " of " +
                                             std::to_string(data_start) + " bytes of header were given");
  }
  std::string_view const json(reinterpret_cast<char const*>(prefix.data()) + kSafetensorsLengthBytes,
                              static_cast<std::size_t>(json_bytes));
  if (!json.starts_with('{')) return Error(Errc::corrupt, name + ": header does not start with '{' at byte 8");

  HeaderParser parser(name, data_start, file_bytes - data_start);
  io_detail::JsonLimits const limits{.max_bytes = kSafetensorsMaxJsonBytes};
  SIDA_TRY(io_detail::for_each_member(json, name + " header", limits,
                                      [&parser](std::string const& key, Json const& value, std::size_t offset) {
                                        return parser.add_member(key, value, offset);
                                      }));
  SIDA_TRY(parser.check_coverage());
  return std::move(parser).take();
}

}  // namespace sida::inline v0
