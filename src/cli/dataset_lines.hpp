#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "sida/core/result.hpp"

namespace sida::cli {

/// Lines of a file, of standard input, or of bytes in memory, without their ends ("\n" or "\r\n") and without a byte
/// order mark at the start. Holds one line and one block. Move-only.
class LineReader {
 public:
  /// "-" is standard input. `cancelled` as in `Dataset::Options`. @return not_found, io.
  static Result<LineReader> open(std::string const& path, std::function<bool()> cancelled);
  static LineReader from_bytes(std::string bytes, std::string name);

  LineReader(LineReader&& other) noexcept;
  LineReader& operator=(LineReader&& other) noexcept;
  ~LineReader();

  /// Reads the next line into `line`. False at the end. @return io, cancelled; corrupt for a line that is too long.
  Result<bool> next(std::string& line);

  std::string const& name() const noexcept { return name_; }
  /// Of the line last read, from 1.
  std::size_t line_number() const noexcept { return number_; }
  /// "NAME:LINE", for messages.
  std::string where() const { return name_ + ":" + std::to_string(number_); }

 private:
  LineReader() = default;
  void swap(LineReader& other) noexcept;
  Result<bool> refill();

  int fd_ = -1;  // -1: nothing beyond `block_`
  std::string name_;
  std::function<bool()> cancelled_;
  std::string block_;
  std::size_t used_ = 0;  // of block_
  std::size_t number_ = 0;
};

}  // namespace sida::cli
