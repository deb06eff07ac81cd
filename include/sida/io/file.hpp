#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "sida/core/api.hpp"
#include "sida/core/result.hpp"

namespace sida::inline v0 {

/// How bytes come from disk.
enum class ReadPath : std::uint8_t {
  pread,  ///< pread into the destination; O_DIRECT where file system and alignment allow it
  mmap,   ///< copied out of a read-only mapping, whose pages are given back after each large read
};

/// Bytes that were read from disk, for honest accounting. Monotonic.
struct ReadStats {
  std::uint64_t bytes_read = 0;      ///< what the file was asked for, over-reads included
  std::uint64_t overread_bytes = 0;  ///< the part that alignment forced and nobody wanted
  std::uint64_t reads = 0;           ///< calls of `read_at` that succeeded
  std::uint64_t staging_bytes = 0;  ///< memory that aligned reads have taken for staging so far, at most 4 MiB a source
};

/// A read-only file. Reads are blocking, positioned and thread-safe. One implementation per read path.
///
/// What is read bypasses the page cache (`pread` with O_DIRECT) when it is at least 64 KiB, or when offset, size
/// and address are multiples of 4 KiB. In the second case it lands in `dst` itself, otherwise it passes through
/// at most four staging chunks of 1 MiB. A file system without O_DIRECT gets ordinary reads.
///
/// The file must not shrink while it is open. `pread` answers a shrunk file with an error; so does `mmap` in all
/// but the moment between its check and the copy, when the kernel raises SIGBUS.
class SIDA_API File {
 public:
  virtual ~File() = default;
  /// Opens `path`, which must be a regular file. @return not_found, io.
  static Result<std::unique_ptr<File>> open(std::string path, ReadPath read_path);

  virtual std::string const& path() const noexcept = 0;
  /// As it was when the file was opened.
  virtual std::uint64_t size_bytes() const noexcept = 0;
  /// Fills all of `dst` from `offset`; on failure the content of `dst` is unspecified.
  /// @return io (short read, past the end, system error; with path and offset).
  virtual Status read_at(std::uint64_t offset, std::span<std::byte> dst) const = 0;
  virtual ReadStats read_stats() const noexcept = 0;
};

}  // namespace sida::inline v0
