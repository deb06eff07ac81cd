#pragma once

#include <cstdio>
#include <string>
#include <variant>
#include <vector>

#include "bench/json_line.hpp"

namespace sida::bench {

/// One figure, or word, of a row.
struct Cell {
  char const* key;
  std::variant<double, std::string> value;
  int decimals = 0;
};

/// Rows on standard output as they come: tables, with a line of keys wherever a row is of another kind than the one
/// before; or lines of JSON.
class Report {
 public:
  explicit Report(bool as_json) : as_json_(as_json) {}

  void row(char const* kind, std::vector<Cell> const& cells) {
    if (as_json_) return json(kind, cells);
    if (last_kind_ != kind) {
      std::printf("\n%s\n", kind);
      for (Cell const& cell : cells) std::printf("%-*s  ", width(cell), cell.key);
      std::printf("\n");
    }
    last_kind_ = kind;
    for (Cell const& cell : cells) {
      auto const* const number = std::get_if<double>(&cell.value);
      if (number != nullptr) std::printf("%*.*f  ", width(cell), cell.decimals, *number);
      if (number == nullptr) std::printf("%-*s  ", width(cell), std::get<std::string>(cell.value).c_str());
    }
    std::printf("\n");
    std::fflush(stdout);
  }

 private:
  static int width(Cell const& cell) {
    constexpr std::size_t kNumber = 9, kWord = 32;
    std::size_t const key = std::string(cell.key).size();
    bool const is_long = std::holds_alternative<std::string>(cell.value) && key < 4;
    return static_cast<int>(std::max(key, is_long ? kWord : kNumber));
  }

  static void json(char const* kind, std::vector<Cell> const& cells) {
    JsonLine line(kind);
    for (Cell const& cell : cells) std::visit([&](auto const& value) { line.add(cell.key, value); }, cell.value);
  }

  bool as_json_;
  std::string last_kind_;
};

}  // namespace sida::bench
