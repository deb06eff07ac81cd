#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "sida/core/result.hpp"

namespace sida::cli {

/// A file that appears whole or not at all: written beside `path` under a temporary name, renamed by `commit`,
/// removed by the destructor when there was no commit. A path that names something other than a regular file
/// (/dev/stdout, a pipe) is written directly. Buffered. Move-only.
class OutputFile {
 public:
  /// @return io, naming `path`.
  static Result<OutputFile> create(std::string const& path);
  OutputFile(OutputFile&& other) noexcept { swap(other); }
  OutputFile& operator=(OutputFile&& other) noexcept {
    OutputFile(std::move(other)).swap(*this);
    return *this;
  }
  ~OutputFile();

  Status write(std::span<std::byte const> bytes);
  Status write(std::string_view text);
  /// Overwrites bytes that were written before (a header whose counts are known late).
  Status overwrite(std::uint64_t offset, std::span<std::byte const> bytes);
  /// Flushes, closes and renames. Call it last.
  Status commit();

  std::string const& path() const noexcept { return path_; }

 private:
  OutputFile() = default;
  void swap(OutputFile& other) noexcept;
  Status flush();
  Error failure(std::string_view what) const;

  int fd_ = -1;
  std::string path_;
  std::string temporary_;  ///< empty when written directly
  std::string buffer_;
};

}  // namespace sida::cli
