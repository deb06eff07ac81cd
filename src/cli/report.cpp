#include "cli/report.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>

#include <nlohmann/json.hpp>

namespace sida::cli {

Status print(std::string const& text) {
  if (std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0) return {};
  return {Errc::io, std::string("standard output: cannot write: ") + std::strerror(errno)};
}

std::string format_bytes(std::uint64_t bytes) {
  static constexpr std::array<char const*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return std::to_string(bytes) + " B";
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return format_fixed(value, 1) + " " + kUnits[unit];
}

double ratio(std::uint64_t part, std::uint64_t whole) noexcept {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

std::string format_fixed(double value, int places) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f", places, value);
  return text.data();
}

void Report::add(std::string key, std::uint64_t value) { entries_.emplace_back(std::move(key), std::to_string(value)); }

void Report::add(std::string key, double value) { entries_.emplace_back(std::move(key), nlohmann::json(value).dump()); }

void Report::add(std::string key, std::string_view text) {
  // Paths may hold any bytes; JSON may not.
  auto const quoted = nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  entries_.emplace_back(std::move(key), quoted);
}

std::string Report::json() const {
  std::string text = "{\n";
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    text += "  " + nlohmann::json(entries_[i].first).dump() + ": " + entries_[i].second;
    text += i + 1 < entries_.size() ? ",\n" : "\n";
  }
  return text + "}\n";
}

std::string Table::text() const {
  std::size_t width = 0;
  for (auto const& [name, value] : rows_) width = std::max(width, name.size());
  std::string text;
  for (auto const& [name, value] : rows_) {
    text += name;
    text.append(width - name.size() + 2, ' ');
    text += value;
    text += '\n';
  }
  return text;
}

std::string Grid::text() const {
  std::vector<std::size_t> widths(rows_.front().size());
  for (auto const& row : rows_) {
    for (std::size_t i = 0; i < widths.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (auto const& row : rows_) {
    for (std::size_t i = 0; i < widths.size(); ++i) {
      std::string const blanks(widths[i] - row[i].size(), ' ');
      text += i == 0 ? row[i] + blanks : "  " + blanks + row[i];
    }
    text += '\n';
  }
  return text;
}

}  // namespace sida::cli
