#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "cli/dataset.hpp"

/// Reads all rows, and holds each to what `Row` promises. Rows of MultiRC repeat their passage, so they are many and
/// long for few bytes: a bounded number is enough.
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  constexpr int kMaxRows = 1000;
  auto dataset = sida::cli::Dataset::from_bytes(std::string(reinterpret_cast<char const*>(data), size), "fuzz");
  if (!dataset) return 0;
  for (int i = 0; i < kMaxRows; ++i) {
    auto const row = dataset->next();
    if (!row || !*row) {
      if (i == 0) std::abort();  // an open data set has a row
      auto const after = dataset->next();
      if (!after || *after) std::abort();
      return 0;
    }
    auto const& [text_a, text_b, ids, label, line] = **row;
    if (line == 0) std::abort();
    if (label && (*label < 0 || *label >= sida::cli::kMaxLabels)) std::abort();
    if (!ids) continue;
    if (ids->empty() || !text_a.empty() || text_b) std::abort();
    for (auto const id : *ids) {
      if (id < 0) std::abort();
    }
  }
  return 0;
}
