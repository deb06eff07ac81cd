#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "cli/dataset.hpp"
#include "cli/digest.hpp"
#include "cli/output_file.hpp"
#include "sida/core/matrix.hpp"
#include "sida/core/result.hpp"

namespace sida::cli {

/// The answers of a classifier, in input order: written as TSV, digested, and compared with labels.
class ClassifyResults {
 public:
  /// `out`: a file for "index, label, score_0, ..." lines, or empty. @return io.
  static Result<ClassifyResults> create(std::string const& out, std::int64_t labels);

  /// Keeps the lines too, for `lines`.
  void keep_lines() { keep_lines_ = true; }

  /// logits: [rows, labels]. @return io.
  Status add(std::span<Row const> rows, Matrix<float const> logits);
  /// As those of `OutputFile`. @return io.
  Status finish();
  Status publish() { return out_ ? out_->publish() : Status(); }

  /// Share of right answers among the rows that have a label; nothing without labels.
  std::optional<double> accuracy() const noexcept;
  /// SHA-256 of all logits: float32, little-endian, in input order.
  std::string logits_sha256() const { return digest_.hex(); }
  std::string const& lines() const noexcept { return lines_; }

 private:
  explicit ClassifyResults(Sha256 digest) : digest_(std::move(digest)) {}
  Status put(std::string_view text);

  Sha256 digest_;
  std::optional<OutputFile> out_;
  bool keep_lines_ = false;
  std::string header_;
  std::string lines_;
  std::uint64_t index_ = 0;
  std::uint64_t labelled_ = 0;
  std::uint64_t right_ = 0;
};

}  // namespace sida::cli
