#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sida/core/result.hpp"

namespace sida::cli {

/// One input: one or two texts, or token ids; with its label where the file gives one.
struct Row {
  std::string text_a;
  std::optional<std::string> text_b;
  std::optional<std::vector<std::int32_t>> ids;  ///< not empty, each >= 0; the texts are empty then
  std::optional<std::int32_t> label;             ///< in [0, kMaxLabels)
  std::size_t line = 0;                          ///< where it began, from 1; for messages
};

/// That the texts of `row` are UTF-8 without NUL. `where` is for messages. @return corrupt.
Status check_text(Row const& row, std::string const& where);

inline constexpr std::int32_t kMaxLabels = 1024;
/// A longer line is an error, so that a file without line ends costs no more memory than this.
inline constexpr std::size_t kMaxLineBytes = std::size_t{16} << 20;

/// Reads inputs one by one; holds one line at a time. Formats, told apart by the first character that isn't white
/// space (`{` is JSONL):
/// - TSV with a header line: columns `sentence`, or `sentence1` and `sentence2`, and `label` if there is one; MRPC's
///   own names (`#1 String`, `#2 String`, `Quality`) mean the same; other columns are ignored. Split on tabs, no
///   quoting.
/// - JSONL: `{"ids": [..]}`, `{"sentence": ".."}` or `{"sentence1": "..", "sentence2": ".."}`, each with `"label"` if
///   there is one; or a line of MultiRC (`passage`), which gives one row per answer: text_a is the question, a
///   space and the answer, text_b is the passage, so that truncation takes the passage's end.
/// A UTF-8 byte order mark and CRLF line ends are taken off. Text is UTF-8 without NUL, or an error. Blank lines are
/// tolerated at the end only, since skipping one would shift predictions against the file; a line of tabs is a row of
/// empty fields, where TSV has several columns.
/// Errors read "FILE:LINE: what". Not thread-safe; move-only.
class Dataset {
 public:
  struct Options {
    /// Asked before a block is read, and several times a second while there is nothing to read; may be empty. True ends
    /// reading with `cancelled`.
    std::function<bool()> cancelled;
  };

  /// Opens a file, or standard input when `path` is "-". @return not_found, io; corrupt when it holds no row.
  static Result<Dataset> open(std::string const& path, Options options);
  static Result<Dataset> open(std::string const& path) { return open(path, Options{}); }
  /// The content of a file that is in memory. @return as `open`.
  static Result<Dataset> from_bytes(std::string bytes, std::string name);
  /// One row without a label.
  static Dataset from_text(std::string text);

  Dataset(Dataset&& other) noexcept;
  Dataset& operator=(Dataset&& other) noexcept;
  ~Dataset();

  /// The next row, or nothing at the end. After an error the data set stays at its end.
  /// @return corrupt (the content), io, cancelled.
  Result<std::optional<Row>> next();

  /// The path as given, "<stdin>" or "--text"; for messages.
  std::string const& name() const noexcept;

 private:
  struct Impl;
  explicit Dataset(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sida::cli
