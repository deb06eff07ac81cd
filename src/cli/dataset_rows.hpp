#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "cli/dataset.hpp"
#include "sida/core/result.hpp"

namespace sida::cli {

/// Turns the lines of one format into rows: one `feed` per line, then `next` until it has nothing.
class RowParser {
 public:
  virtual ~RowParser() = default;
  /// `where` is "FILE:LINE", for messages; `number` the line's number. `line` may be moved from.
  virtual Status feed(std::string& line, std::string const& where, std::size_t number) = 0;
  virtual Result<std::optional<Row>> next() = 0;
  /// Whether a line of nothing but white space is no row.
  virtual bool skips(std::string_view blank_line) const = 0;
};

/// `header`: the line that names the columns.
Result<std::unique_ptr<RowParser>> make_tsv_parser(std::string_view header, std::string const& where);
std::unique_ptr<RowParser> make_jsonl_parser();

}  // namespace sida::cli
