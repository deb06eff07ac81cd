#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sida/core/result.hpp"

namespace sida::cli {

/// Writes to standard output at once. A command says what it has to say before its files appear, so that a standard
/// output which is full or closed leaves none. @return io.
Status print(std::string const& text);

/// "3.4 GiB", "512 B".
std::string format_bytes(std::uint64_t bytes);
/// `value` with `places` digits after the point.
std::string format_fixed(double value, int places);
/// `part` of `whole`; 0 of nothing.
double ratio(std::uint64_t part, std::uint64_t whole) noexcept;

/// A flat account of a run: keys and values in the order in which they were added.
class Report {
 public:
  void add(std::string key, std::uint64_t value);
  void add(std::string key, double value);  ///< null in JSON where it isn't finite
  void add(std::string key, std::string_view text);
  void add(std::string key, char const* text) { add(std::move(key), std::string_view(text)); }

  /// One JSON object, one key per line.
  std::string json() const;

 private:
  std::vector<std::pair<std::string, std::string>> entries_;  // values are JSON
};

/// Lines "name   value" with the values in one column, for people.
class Table {
 public:
  void row(std::string name, std::string value) { rows_.emplace_back(std::move(name), std::move(value)); }
  std::string text() const;

 private:
  std::vector<std::pair<std::string, std::string>> rows_;
};

/// Rows of several cells under a heading, for people: the first column to the left, all others to the right.
class Grid {
 public:
  explicit Grid(std::vector<std::string> heading) { rows_.push_back(std::move(heading)); }
  /// As many cells as the heading has.
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace sida::cli
