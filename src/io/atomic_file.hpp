#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "io/file_descriptor.hpp"
#include "sida/core/result.hpp"

namespace sida::inline v0::io_detail {

/// A file that comes to be at its path whole or not at all: written under a temporary name in the same folder,
/// which is removed again unless `publish` succeeds. A symbolic link at the path stays, and leads to the new file.
/// Move-only; one thread.
class AtomicFile {
 public:
  /// @return not_found (the folder); io, also for what is there and no regular file: a folder, a device, a FIFO, or a
  /// name of an open descriptor such as /dev/stdout.
  static Result<AtomicFile> create(std::string const& path);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  /// Name of the file while it is written.
  std::string const& temporary() const noexcept { return temporary_; }
  /// Claims disk space, so that a full disk shows before the work. Bytes never written read as zeros.
  Status reserve(std::uint64_t bytes);
  Status write_at(std::uint64_t offset, std::span<std::byte const> bytes);
  /// Makes the bytes durable: what may yet fail for a full disk fails here. Nothing is written afterwards.
  Status finish();
  /// Gives a finished file its name. When the very last step, making the name durable, fails, the new file is in place
  /// all the same.
  Status publish();

 private:
  AtomicFile() = default;
  std::string path_;
  std::string temporary_;  // empty when there is nothing to remove
  FileDescriptor folder_;
  FileDescriptor file_;
};

}  // namespace sida::inline v0::io_detail
