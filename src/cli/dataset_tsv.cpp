#include <algorithm>
#include <utility>
#include <vector>

#include "cli/dataset_rows.hpp"
#include "cli/options.hpp"
#include "io/json.hpp"
#include "sida/detail/try.hpp"

namespace sida::cli {
namespace {

std::vector<std::string_view> split_on_tabs(std::string_view line) {
  std::vector<std::string_view> fields;
  for (;;) {
    auto const tab = line.find('\t');
    fields.push_back(line.substr(0, tab));
    if (tab == std::string_view::npos) return fields;
    line.remove_prefix(tab + 1);
  }
}

/// Places of the columns that matter.
struct Columns {
  std::size_t count = 0;
  std::optional<std::size_t> single, first, second, label;
};

class TsvParser final : public RowParser {
 public:
  explicit TsvParser(Columns columns) : columns_(columns) {}

  Status feed(std::string& line, std::string const& where, std::size_t number) override {
    auto const fields = split_on_tabs(line);
    if (fields.size() != columns_.count) {
      return {Errc::corrupt, where + ": " + std::to_string(fields.size()) + " columns where the header names " +
                                 std::to_string(columns_.count)};
    }
    Row row;
    row.line = number;
    row.text_a = fields[columns_.single ? *columns_.single : *columns_.first];
    if (columns_.second) row.text_b = fields[*columns_.second];
    if (columns_.label) {
      auto const label = parse_number(fields[*columns_.label], 0, kMaxLabels - 1);
      if (!label) {
        return {Errc::corrupt, where + ": label " + io_detail::in_quotes(fields[*columns_.label]) +
                                   " is not a whole number from 0 to " + std::to_string(kMaxLabels - 1)};
      }
      row.label = static_cast<std::int32_t>(*label);
    }
    row_ = std::move(row);
    return {};
  }

  Result<std::optional<Row>> next() override { return std::exchange(row_, std::nullopt); }

  /// Tabs split empty fields, where there are several columns.
  bool skips(std::string_view blank_line) const override {
    return columns_.count == 1 || blank_line.find('\t') == std::string_view::npos;
  }

 private:
  Columns columns_;
  std::optional<Row> row_;
};

Result<Columns> read_header(std::string_view header, std::string const& where) {
  Columns columns;
  auto const names = split_on_tabs(header);
  columns.count = names.size();
  // The second name of each is MRPC's.
  std::pair<std::optional<std::size_t>*, std::vector<std::string_view>> const roles[] = {
      {&columns.single, {"sentence"}},
      {&columns.first, {"sentence1", "#1 String"}},
      {&columns.second, {"sentence2", "#2 String"}},
      {&columns.label, {"label", "Quality"}}};
  for (std::size_t i = 0; i < names.size(); ++i) {
    for (auto const& [place, words] : roles) {
      if (std::ranges::find(words, names[i]) == words.end()) continue;
      if (*place)
        return Error(Errc::corrupt, where + ": the header names " + io_detail::in_quotes(names[i]) + " twice");
      *place = i;
    }
  }
  if (header.starts_with('[')) {
    return Error(Errc::corrupt,
                 where + ": a JSON array; each line of a JSONL file is an object, such as {\"ids\": [3, 1]}");
  }
  bool const has_pair = columns.first && columns.second;
  bool const has_part = columns.first || columns.second;
  if (has_pair != columns.single.has_value() && has_pair == has_part) return columns;
  return Error(Errc::corrupt,
               where +
                   ": the header must name 'sentence', or 'sentence1' and 'sentence2', split by tabs; or each "
                   "line is a JSON object");
}

}  // namespace

Result<std::unique_ptr<RowParser>> make_tsv_parser(std::string_view header, std::string const& where) {
  SIDA_TRY_ASSIGN(auto const columns, read_header(header, where));
  return std::unique_ptr<RowParser>(std::make_unique<TsvParser>(columns));
}

}  // namespace sida::cli
