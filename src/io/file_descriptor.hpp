#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "sida/core/result.hpp"

namespace sida::inline v0::io_detail {

/// Owns a POSIX file descriptor. Move-only.
class FileDescriptor {
 public:
  FileDescriptor() noexcept = default;
  explicit FileDescriptor(int fd) noexcept : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor();

  int get() const noexcept { return fd_; }
  /// Gives the descriptor away: the caller closes it.
  int release() noexcept { return std::exchange(fd_, -1); }
  explicit operator bool() const noexcept { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

/// "PATH: WHAT: ERRNO TEXT".
Error system_error(Errc code, std::string const& path, std::string_view what, int error_number);

struct OpenedFile {
  FileDescriptor descriptor;
  std::uint64_t size_bytes = 0;
};

/// Opens a regular file for reading. @return not_found, io.
Result<OpenedFile> open_for_reading(std::string const& path);

/// Whether `bytes` bytes from `offset` lie in a file of `size_bytes`. @return io, naming path and offset.
Status check_range(std::string const& path, std::uint64_t size_bytes, std::uint64_t offset, std::uint64_t bytes);

/// The message of a read that ended early.
Error short_read(std::string const& path, std::uint64_t offset, std::uint64_t got, std::uint64_t wanted);

}  // namespace sida::inline v0::io_detail
