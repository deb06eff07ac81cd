#include "cli/npy.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <limits>
#include <utility>

#include "io/json.hpp"
#include "sida/detail/try.hpp"
#include "sida/io/file.hpp"

namespace sida::cli {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::size_t kPrefixBytes = 10;   // magic, version, length of the text, in format 1.0
constexpr std::size_t kHeaderBytes = 320;  // a multiple of 64, as the format asks, with room for any shape of ours
constexpr std::size_t kMaxDimensions = 8;

struct TypeWord {
  NpyType type;
  std::string_view word;
};
constexpr std::array<TypeWord, 4> kTypeWords = {
    {{NpyType::u8, "|u1"}, {NpyType::u16, "<u2"}, {NpyType::i32, "<i4"}, {NpyType::f32, "<f4"}}};

std::string_view word_of(NpyType type) { return std::ranges::find(kTypeWords, type, &TypeWord::type)->word; }

/// The whole header, padded to kHeaderBytes.
std::string make_header(NpyType type, std::uint64_t rows, std::span<std::uint64_t const> row_shape) {
  std::string text = "{'descr': '" + std::string(word_of(type)) + "', 'fortran_order': False, 'shape': (";
  text += std::to_string(rows) + ",";
  for (std::size_t i = 0; i < row_shape.size(); ++i) text += (i == 0 ? " " : ", ") + std::to_string(row_shape[i]);
  text += "), }";
  text.append(kHeaderBytes - kPrefixBytes - 1 - text.size(), ' ');
  text += '\n';
  std::string header(kMagic);
  header += std::string("\x01\x00", 2);
  header += static_cast<char>(text.size() & 0xFF);
  header += static_cast<char>(text.size() >> 8);
  return header + text;
}

/// Reads the dictionary of a header: a Python literal with three known keys.
class HeaderText {
 public:
  HeaderText(std::string_view text, std::string const& name) : text_(text), name_(name) {}

  Result<std::string> string_of(std::string_view key) {
    SIDA_TRY(find(key));
    if (!take('\'')) return malformed(key);
    auto const end = rest_.find('\'');
    if (end == std::string_view::npos) return malformed(key);
    return std::string(rest_.substr(0, end));
  }

  Result<bool> flag_of(std::string_view key) {
    SIDA_TRY(find(key));
    if (rest_.starts_with("True")) return true;
    if (rest_.starts_with("False")) return false;
    return malformed(key);
  }

  Result<std::vector<std::uint64_t>> shape_of(std::string_view key) {
    SIDA_TRY(find(key));
    if (!take('(')) return malformed(key);
    std::vector<std::uint64_t> shape;
    while (!take(')')) {
      std::uint64_t size = 0;
      auto const [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), size);
      if (error != std::errc() || shape.size() == kMaxDimensions) return malformed(key);
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      shape.push_back(size);
      if (!take(',') && !rest_.starts_with(')')) return malformed(key);
    }
    return shape;
  }

 private:
  Status find(std::string_view key) {
    std::string const quoted = "'" + std::string(key) + "'";
    auto const at = text_.find(quoted);
    if (at == std::string_view::npos) return malformed(key);
    rest_ = text_.substr(at + quoted.size());
    skip_blanks();
    return take(':') ? Status() : Status(malformed(key));
  }

  bool take(char c) {
    if (!rest_.starts_with(c)) return false;
    rest_.remove_prefix(1);
    skip_blanks();
    return true;
  }

  void skip_blanks() { rest_.remove_prefix(std::min(rest_.find_first_not_of(' '), rest_.size())); }

  Error malformed(std::string_view key) const {
    return {Errc::corrupt, name_ + ": malformed header: no usable '" + std::string(key) + "'"};
  }

  std::string_view text_;
  std::string_view rest_;
  std::string const& name_;
};

/// Bytes of an array of this shape, or nothing when they overflow.
std::optional<std::uint64_t> array_bytes(NpyType type, std::span<std::uint64_t const> shape) {
  std::uint64_t bytes = size_bytes(type);
  if (std::ranges::find(shape, std::uint64_t{0}) != shape.end()) return 0;
  for (std::uint64_t const size : shape) {
    if (bytes > std::numeric_limits<std::uint64_t>::max() / size) return std::nullopt;
    bytes *= size;
  }
  return bytes;
}

std::uint64_t unsigned_at(std::span<std::byte const> file, std::size_t offset, std::size_t count) {
  std::uint64_t value = 0;
  for (std::size_t i = count; i-- > 0;) value = value << 8 | std::to_integer<std::uint64_t>(file[offset + i]);
  return value;
}

/// The text of the header, and through `data` where the elements begin.
Result<std::string_view> header_text(std::span<std::byte const> file, std::string const& name, std::size_t& data) {
  bool const has_magic = file.size() >= kPrefixBytes && std::memcmp(file.data(), kMagic.data(), kMagic.size()) == 0;
  if (!has_magic) return Error(Errc::corrupt, name + ": not a .npy file");
  auto const version = std::to_integer<unsigned>(file[6]);
  if (version < 1 || version > 3) {
    return Error(Errc::unsupported, name + ": .npy version " + std::to_string(version));
  }
  std::size_t const length_bytes = version == 1 ? 2 : 4;
  std::size_t const start = 8 + length_bytes;
  if (file.size() < start) return Error(Errc::corrupt, name + ": header cut short");
  std::uint64_t const length = unsigned_at(file, 8, length_bytes);
  if (length > file.size() - start) return Error(Errc::corrupt, name + ": header longer than the file");
  data = start + static_cast<std::size_t>(length);
  return std::string_view(reinterpret_cast<char const*>(file.data()) + start, static_cast<std::size_t>(length));
}

}  // namespace

NpyWriter::NpyWriter(OutputFile file, NpyType type, std::vector<std::uint64_t> row_shape)
    : file_(std::move(file)),
      type_(type),
      row_shape_(std::move(row_shape)),
      row_bytes_(std::max<std::uint64_t>(1, array_bytes(type, row_shape_).value_or(0))) {}

Result<NpyWriter> NpyWriter::create(std::string const& path, NpyType type, std::vector<std::uint64_t> row_shape) {
  if (row_shape.size() >= kMaxDimensions || array_bytes(type, row_shape).value_or(0) == 0) {
    return Error(Errc::invalid_argument, path + ": a row of no elements, or too many of them");
  }
  SIDA_TRY_ASSIGN(auto file, OutputFile::create(path));
  if (!file.can_overwrite()) {
    return Error(Errc::io,
                 path + ": cannot seek there, but a .npy file begins with the number of its rows, known last");
  }
  NpyWriter writer(std::move(file), type, std::move(row_shape));
  SIDA_TRY(writer.file_.write(make_header(type, 0, writer.row_shape_)));
  return writer;
}

Status NpyWriter::append_bytes(NpyType type, std::span<std::byte const> bytes) {
  if (type != type_ || bytes.size() % row_bytes_ != 0) {
    return {Errc::invalid_argument, file_.path() + ": not whole rows of " + std::string(word_of(type_))};
  }
  SIDA_TRY(file_.write(bytes));
  bytes_ += bytes.size();
  return {};
}

Status NpyWriter::finish() {
  std::string const header = make_header(type_, rows(), row_shape_);
  SIDA_TRY(file_.overwrite(0, std::as_bytes(std::span(header))));
  return file_.finish();
}

Status NpyWriter::commit() {
  SIDA_TRY(finish());
  return publish();
}

Result<NpyArray> parse_npy(std::span<std::byte const> file, std::string const& name) {
  std::size_t data = 0;
  SIDA_TRY_ASSIGN(auto const text, header_text(file, name, data));
  HeaderText header(text, name);
  SIDA_TRY_ASSIGN(auto const word, header.string_of("descr"));
  auto const* const known = std::ranges::find(kTypeWords, std::string_view(word), &TypeWord::word);
  if (known == kTypeWords.end()) {
    return Error(Errc::unsupported, name + ": element type " + io_detail::in_quotes(word));
  }
  SIDA_TRY_ASSIGN(bool const is_fortran, header.flag_of("fortran_order"));
  if (is_fortran) return Error(Errc::unsupported, name + ": Fortran order");
  NpyArray array;
  array.type = known->type;
  SIDA_TRY_ASSIGN(array.shape, header.shape_of("shape"));
  auto const bytes = array_bytes(array.type, array.shape);
  if (!bytes || *bytes != file.size() - data) {
    return Error(Errc::corrupt, name + ": " + std::to_string(file.size() - data) +
                                    " bytes of elements, but the shape " + "asks for " +
                                    (bytes ? std::to_string(*bytes) : std::string("more than 2^64")));
  }
  array.bytes.assign(file.begin() + static_cast<std::ptrdiff_t>(data), file.end());
  return array;
}

Result<NpyArray> read_npy(std::string const& path) {
  SIDA_TRY_ASSIGN(auto const file, File::open(path, ReadPath::pread));
  std::vector<std::byte> bytes(file->size_bytes());
  SIDA_TRY(file->read_at(0, bytes));
  return parse_npy(bytes, path);
}

}  // namespace sida::cli
