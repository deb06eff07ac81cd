#include "cli/dataset.hpp"

#include <utility>

#include "cli/dataset_lines.hpp"
#include "cli/dataset_rows.hpp"
#include "sida/detail/try.hpp"

namespace sida::cli {
namespace {

constexpr std::string_view kBlanks = " \t\v\f\r";

bool is_blank(std::string_view line) { return line.find_first_not_of(kBlanks) == std::string_view::npos; }

/// Bytes of the character of UTF-8 at the front of `text`; 0 where there is none, or a NUL.
std::size_t character_bytes(std::string_view text) {
  auto const byte = [&](std::size_t i) { return static_cast<unsigned char>(i < text.size() ? text[i] : 0); };
  unsigned char const first = byte(0);
  if (first < 0x80) return first == 0 ? 0 : 1;
  std::size_t const size = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  // Longer than need be, a surrogate, or beyond the last character.
  bool const is_out = (first == 0xE0 && byte(1) < 0xA0) || (first == 0xED && byte(1) >= 0xA0) ||
                      (first == 0xF0 && byte(1) < 0x90) || (first == 0xF4 && byte(1) >= 0x90);
  return is_out ? 0 : size;
}

Status check_text(std::string_view text, std::string const& where) {
  for (std::size_t at = 0; at < text.size();) {
    std::size_t const size = character_bytes(text.substr(at));
    if (size == 0) {
      return {Errc::corrupt, where + ": the text is not UTF-8, or has a NUL in it, at its byte " + std::to_string(at)};
    }
    at += size;
  }
  return {};
}

}  // namespace

Status check_text(Row const& row, std::string const& where) {
  SIDA_TRY(check_text(row.text_a, where));
  return row.text_b ? check_text(*row.text_b, where) : Status();
}

struct Dataset::Impl {
  explicit Impl(LineReader reader) : lines(std::move(reader)) {}

  /// Tells the format and reads the first row, so that a file without one is found early.
  Status start();
  Result<std::optional<Row>> read();
  /// The next line that isn't blank. False at the end.
  Result<bool> next_line();

  LineReader lines;
  std::string line;
  std::unique_ptr<RowParser> parser;
  std::optional<Row> first;
  bool at_end = false;
};

Result<bool> Dataset::Impl::next_line() {
  std::size_t blank = 0;
  for (;;) {
    SIDA_TRY_ASSIGN(bool const has_line, lines.next(line));
    if (!has_line) return false;
    if (!is_blank(line) || (parser && !parser->skips(line))) break;
    if (blank == 0) blank = lines.line_number();
  }
  if (blank == 0 || !parser) return true;
  return Error(Errc::corrupt, lines.name() + ":" + std::to_string(blank) + ": blank line between rows");
}

Status Dataset::Impl::start() {
  SIDA_TRY_ASSIGN(bool const has_line, next_line());
  if (!has_line) return {Errc::corrupt, lines.name() + ": empty"};
  if (line[line.find_first_not_of(kBlanks)] == '{') {
    parser = make_jsonl_parser();
    SIDA_TRY(parser->feed(line, lines.where(), lines.line_number()));
  } else {
    SIDA_TRY_ASSIGN(parser, make_tsv_parser(line, lines.where()));
  }
  SIDA_TRY_ASSIGN(first, read());
  if (!first) return {Errc::corrupt, lines.name() + ": no rows"};
  return {};
}

Result<std::optional<Row>> Dataset::Impl::read() {
  for (;;) {
    SIDA_TRY_ASSIGN(auto row, parser->next());
    if (row) {
      SIDA_TRY(check_text(*row, lines.where()));
      return row;
    }
    SIDA_TRY_ASSIGN(bool const has_line, next_line());
    if (!has_line) return std::optional<Row>();
    SIDA_TRY(parser->feed(line, lines.where(), lines.line_number()));
  }
}

Dataset::Dataset(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
Dataset::Dataset(Dataset&& other) noexcept = default;
Dataset& Dataset::operator=(Dataset&& other) noexcept = default;
Dataset::~Dataset() = default;

Result<Dataset> Dataset::open(std::string const& path, Options options) {
  SIDA_TRY_ASSIGN(auto lines, LineReader::open(path, std::move(options.cancelled)));
  auto impl = std::make_unique<Impl>(std::move(lines));
  SIDA_TRY(impl->start());
  return Dataset(std::move(impl));
}

Result<Dataset> Dataset::from_bytes(std::string bytes, std::string name) {
  auto impl = std::make_unique<Impl>(LineReader::from_bytes(std::move(bytes), std::move(name)));
  SIDA_TRY(impl->start());
  return Dataset(std::move(impl));
}

Dataset Dataset::from_text(std::string text) {
  auto impl = std::make_unique<Impl>(LineReader::from_bytes({}, "--text"));
  impl->first = Row{.text_a = std::move(text), .text_b = {}, .ids = {}, .label = {}, .line = 1};
  impl->at_end = true;
  return Dataset(std::move(impl));
}

Result<std::optional<Row>> Dataset::next() {
  if (impl_->first) return std::exchange(impl_->first, std::nullopt);
  if (impl_->at_end) return std::optional<Row>();
  auto row = impl_->read();
  if (!row || !*row) impl_->at_end = true;
  return row;
}

std::string const& Dataset::name() const noexcept { return impl_->lines.name(); }

}  // namespace sida::cli
