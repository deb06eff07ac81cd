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
  mmap,   ///< copied out of a read-only mapping, whose pages are given back after each read
};

/// Bytes that were read from disk, for honest accounting. Monotonic.
struct ReadStats {
  std::uint64_t bytes_read = 0;      ///< what the file was asked for, over-reads included
  std::uint64_t overread_bytes = 0;  ///< the part that alignment forced and nobody wanted
  std::uint64_t reads = 0;
};

/// A read-only file. Reads are blocking, positioned and thread-safe. One implementation per read path.
class SIDA_API File {
 public:
  virtual ~File() = default;
  /// Opens `path`. @return not_found, io.
  static Result<std::unique_ptr<File>> open(std::string path, ReadPath read_path);

  virtual std::string const& path() const noexcept = 0;
  virtual std::uint64_t size_bytes() const noexcept = 0;
  /// Fills all of `dst` from `offset`. @return io (short read, system error; with path and offset).
  virtual Status read_at(std::uint64_t offset, std::span<std::byte> dst) const = 0;
  virtual ReadStats read_stats() const noexcept = 0;
};

}  // namespace sida::inline v0
