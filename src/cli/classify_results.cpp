#include "cli/classify_results.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <utility>

#include "sida/detail/try.hpp"

namespace sida::cli {
namespace {

static_assert(std::endian::native == std::endian::little, "digests and files are little-endian");

/// Enough digits to give the same float back.
std::string exact(float value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.9g", static_cast<double>(value));
  return text.data();
}

}  // namespace

Result<ClassifyResults> ClassifyResults::create(std::string const& out, std::int64_t labels) {
  SIDA_TRY_ASSIGN(auto digest, Sha256::create());
  ClassifyResults results(std::move(digest));
  results.header_ = "index\tlabel";
  for (std::int64_t i = 0; i < labels; ++i) results.header_ += "\tscore_" + std::to_string(i);
  results.header_ += "\n";
  if (!out.empty()) {
    SIDA_TRY_ASSIGN(results.out_, OutputFile::create(out));
  }
  return results;
}

Status ClassifyResults::put(std::string_view text) {
  if (keep_lines_) lines_ += text;
  return out_ ? out_->write(text) : Status();
}

Status ClassifyResults::add(std::span<Row const> rows, Matrix<float const> logits) {
  if (index_ == 0) SIDA_TRY(put(header_));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    auto const scores = logits.row(static_cast<std::int64_t>(i));
    digest_.update(std::as_bytes(scores));
    auto const best = std::ranges::max_element(scores) - scores.begin();
    if (rows[i].label) {
      ++labelled_;
      if (*rows[i].label == best) ++right_;
    }
    std::string line = std::to_string(index_++) + "\t" + std::to_string(best);
    for (float const score : scores) line += "\t" + exact(score);
    SIDA_TRY(put(line + "\n"));
  }
  return {};
}

Status ClassifyResults::finish() {
  if (index_ == 0) SIDA_TRY(put(header_));
  return out_ ? out_->finish() : Status();
}

std::optional<double> ClassifyResults::accuracy() const noexcept {
  if (labelled_ == 0) return std::nullopt;
  return static_cast<double>(right_) / static_cast<double>(labelled_);
}

}  // namespace sida::cli
