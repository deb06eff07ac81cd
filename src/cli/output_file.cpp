#include "cli/output_file.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "sida/detail/try.hpp"

namespace sida::cli {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{1} << 20;

std::string system_message() { return std::strerror(errno); }

/// A new file beside `path` that nobody else writes.
Result<std::pair<int, std::string>> create_beside(std::string const& path) {
  for (unsigned attempt = 0; attempt < 100; ++attempt) {
    std::string name = path + ".tmp-" + std::to_string(getpid()) + "-" + std::to_string(attempt);
    int const fd = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) return std::pair(fd, std::move(name));
    if (errno != EEXIST) break;
  }
  return Error(Errc::io, path + ": cannot create: " + system_message());
}

}  // namespace

Result<OutputFile> OutputFile::create(std::string const& path) {
  OutputFile file;
  file.path_ = path;
  struct stat status {};
  bool const exists = ::stat(path.c_str(), &status) == 0;
  if (exists && S_ISDIR(status.st_mode)) return Error(Errc::io, path + ": is a folder");
  if (exists && !S_ISREG(status.st_mode)) {
    file.fd_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (file.fd_ < 0) return Error(Errc::io, path + ": cannot open: " + system_message());
    return file;
  }
  SIDA_TRY_ASSIGN(auto created, create_beside(path));
  file.fd_ = created.first;
  file.temporary_ = std::move(created.second);
  return file;
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void OutputFile::swap(OutputFile& other) noexcept {
  std::swap(fd_, other.fd_);
  path_.swap(other.path_);
  temporary_.swap(other.temporary_);
  buffer_.swap(other.buffer_);
}

Error OutputFile::failure(std::string_view what) const {
  return {Errc::io, path_ + ": cannot " + std::string(what) + ": " + system_message()};
}

Status OutputFile::write(std::string_view text) {
  buffer_.append(text);
  return buffer_.size() >= kBufferBytes ? flush() : Status();
}

Status OutputFile::write(std::span<std::byte const> bytes) {
  return write(std::string_view(reinterpret_cast<char const*>(bytes.data()), bytes.size()));
}

Status OutputFile::flush() {
  std::string_view rest = buffer_;
  while (!rest.empty()) {
    ssize_t const written = ::write(fd_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failure("write");
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
  buffer_.clear();
  return {};
}

Status OutputFile::overwrite(std::uint64_t offset, std::span<std::byte const> bytes) {
  SIDA_TRY(flush());
  while (!bytes.empty()) {
    ssize_t const written = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failure("write");
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += static_cast<std::uint64_t>(written);
  }
  return {};
}

Status OutputFile::commit() {
  SIDA_TRY(flush());
  int const fd = std::exchange(fd_, -1);
  if (::close(fd) != 0) return failure("close");
  if (temporary_.empty()) return {};
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) return failure("rename");
  temporary_.clear();
  return {};
}

}  // namespace sida::cli
