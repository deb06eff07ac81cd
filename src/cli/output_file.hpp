#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "cli/interrupt.hpp"
#include "io/file_descriptor.hpp"
#include "sida/core/result.hpp"

namespace sida::cli {

/// A file that appears whole or not at all: written beside its place under a temporary name, renamed by `publish`,
/// removed by the destructor when there was no `publish`. A symbolic link at the path stays, and leads to the new file.
/// Buffered. Move-only.
///
/// Two kinds of path are written directly instead, from the first flush on:
/// - devices, FIFOs and sockets;
/// - names of open descriptors, such as /dev/stdout, whatever stands behind them. Output goes through the descriptor,
///   from its place on: where a shell has redirected standard output to a file, it goes into that very file, between
///   what the program prints before and after.
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
  /// Whether there can be an `overwrite`: not in a pipe, nor in a file that is opened for appending.
  bool can_overwrite() const noexcept;
  /// Overwrites bytes that were written before (a header whose counts are known late).
  Status overwrite(std::uint64_t offset, std::span<std::byte const> bytes);
  /// Writes all of it out, and closes: what may yet fail for a full disk fails here. Nothing is written afterwards.
  Status finish();
  /// Gives a finished file its place. Of several files, finish all before the first is published.
  Status publish();
  /// Both.
  Status commit();
  /// Removes what stands at the file's place, ahead of `publish`.
  Status remove_old();

  std::string const& path() const noexcept { return path_; }

 private:
  OutputFile() = default;
  void swap(OutputFile& other) noexcept;
  Status flush();
  Error failure(std::string_view what) const;

  io_detail::FileDescriptor fd_;
  std::int64_t first_ = 0;   ///< offset of our first byte in the file; -1 where it has no offsets
  std::string path_;         ///< as given
  std::string target_;       ///< what `path_` leads to; empty when written directly
  std::string temporary_;    ///< empty when written directly
  RemovedWhenKilled guard_;  ///< of `temporary_`
  std::string buffer_;
};

/// That no file which a run will write is one that it reads, or another that it writes, however they are spelt. Empty
/// names count for nothing.
/// @return invalid_argument. `inputs`: files, or folders whose files are all read.
Status require_apart(std::span<std::string const> outputs, std::span<std::string const> inputs);
/// That a folder in which a run makes files of its own is neither an input nor the folder that an input stands in.
/// @return invalid_argument.
Status require_folder_apart(std::string const& folder, std::span<std::string const> inputs);

}  // namespace sida::cli
