#include "sida/io/file.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file_descriptor.hpp"
#include "io/open_file.hpp"
#include "io/staging_pool.hpp"

namespace sida::inline v0 {
namespace io_detail {
namespace {

// strerror_r comes in two shapes; overloads take whichever the C library has.
[[maybe_unused]] char const* error_text(int result, char const* buffer) { return result == 0 ? buffer : "unknown"; }
[[maybe_unused]] char const* error_text(char const* result, char const*) { return result; }

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

Error system_error(Errc code, std::string const& path, std::string_view what, int error_number) {
  char buffer[256] = "";
  char const* const text = error_text(::strerror_r(error_number, buffer, sizeof buffer), buffer);
  return {code, path + ": " + std::string(what) + ": " + text};
}

Result<OpenedFile> open_for_reading(std::string const& path) {
  if (path.find('\0') != std::string::npos) return Error(Errc::not_found, path.c_str() + std::string(": NUL in path"));
  // O_NONBLOCK: a pipe must not block here; for a regular file it means nothing.
  FileDescriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!descriptor) {
    int const error = errno;
    return system_error(error == ENOENT || error == ENOTDIR ? Errc::not_found : Errc::io, path, "open", error);
  }
  struct stat info {};
  if (::fstat(descriptor.get(), &info) != 0) return system_error(Errc::io, path, "fstat", errno);
  if (!S_ISREG(info.st_mode)) return Error(Errc::io, path + ": not a regular file");
  return OpenedFile{std::move(descriptor), static_cast<std::uint64_t>(info.st_size)};
}

Status check_range(std::string const& path, std::uint64_t size_bytes, std::uint64_t offset, std::uint64_t bytes) {
  if (offset <= size_bytes && bytes <= size_bytes - offset) return {};
  return Error(Errc::io, path + ": read of " + std::to_string(bytes) + " bytes at offset " + std::to_string(offset) +
                             " ends past the file's " + std::to_string(size_bytes) + " bytes");
}

Error short_read(std::string const& path, std::uint64_t offset, std::uint64_t got, std::uint64_t wanted) {
  return {Errc::io, path + ": short read at offset " + std::to_string(offset) + ": " + std::to_string(got) + " of " +
                        std::to_string(wanted) + " bytes; was the file truncated?"};
}

Result<std::unique_ptr<File>> open_file(std::string path, ReadPath read_path, std::shared_ptr<StagingPool> staging) {
  switch (read_path) {
    case ReadPath::pread: return open_pread_file(std::move(path), std::move(staging));
    case ReadPath::mmap: return open_mmap_file(std::move(path));
  }
  return Error(Errc::invalid_argument, path + ": unknown read path");
}

}  // namespace io_detail

Result<std::unique_ptr<File>> File::open(std::string path, ReadPath read_path) {
  return io_detail::open_file(std::move(path), read_path, std::make_shared<io_detail::StagingPool>());
}

}  // namespace sida::inline v0
