#include "io/output_target.hpp"

#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <fcntl.h>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "sida/detail/try.hpp"

namespace sida::inline v0::io_detail {
namespace {

constexpr int kMostLinks = 40;  // as Linux has it

bool is_same(struct stat const& a, struct stat const& b) noexcept {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/// Whether this link stands in /proc, where links lead to what is open and not to a name.
bool is_in_proc(struct stat const& link) noexcept {
  struct stat proc {};
  return ::stat("/proc/self/fd", &proc) == 0 && link.st_dev == proc.st_dev;
}

/// The descriptor that the last part of `path` numbers, if it is what `path` leads to; else -1.
int descriptor_of(std::string const& path) noexcept {
  std::string_view const number = std::string_view(path).substr(folder_of(path).size());
  int fd = -1;
  auto const [end, error] = std::from_chars(number.data(), number.data() + number.size(), fd);
  if (error != std::errc() || end != number.data() + number.size()) return -1;
  struct stat open {
  }, there{};
  return ::fstat(fd, &open) == 0 && ::stat(path.c_str(), &there) == 0 && is_same(open, there) ? fd : -1;
}

/// What the link at `path` says, as seen from where `path` is.
Result<std::string> read_link(std::string const& path) {
  std::array<char, PATH_MAX> text;
  ssize_t const size = ::readlink(path.c_str(), text.data(), text.size());
  if (size < 0) return system_error(Errc::io, path, "readlink", errno);
  std::string const said(text.data(), static_cast<std::size_t>(size));
  return said.starts_with('/') ? said : folder_of(path) + said;
}

}  // namespace

std::string folder_of(std::string const& path) {
  auto const slash = path.rfind('/');
  return slash == path.npos ? "./" : path.substr(0, slash + 1);
}

Result<OutputTarget> find_output_target(std::string const& path) {
  if (path.empty() || path.find('\0') != path.npos) return Error(Errc::invalid_argument, "empty path, or NUL in it");
  OutputTarget target{.path = path};
  struct stat status {};
  for (int links = 0; ::lstat(target.path.c_str(), &status) == 0; ++links) {
    if (S_ISLNK(status.st_mode) && is_in_proc(status)) {
      target.kind = OutputTarget::Kind::descriptor;
      target.descriptor = descriptor_of(target.path);
      return target;
    }
    if (!S_ISLNK(status.st_mode)) {
      if (S_ISDIR(status.st_mode)) target.kind = OutputTarget::Kind::folder;
      if (!S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode)) target.kind = OutputTarget::Kind::special;
      return target;
    }
    if (links == kMostLinks) return system_error(Errc::io, path, "follow links", ELOOP);
    SIDA_TRY_ASSIGN(target.path, read_link(target.path));
  }
  return target;  // nothing there; why, if not for want of a file, shows when it is made
}

Result<TemporaryFile> create_temporary_beside(std::string const& path) {
  constexpr int kTries = 1000;
  std::string const start = folder_of(path) + ".sida-" + std::to_string(::getpid()) + "-";
  for (int i = 0; i < kTries; ++i) {
    std::string name = start + std::to_string(i) + ".tmp";
    FileDescriptor file(::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (file) {
      // As open as the file that it replaces.
      struct stat replaced {};
      if (::stat(path.c_str(), &replaced) == 0) static_cast<void>(::fchmod(file.get(), replaced.st_mode & 0777));
      return TemporaryFile{std::move(file), std::move(name)};
    }
    if (errno != EEXIST) return system_error(Errc::io, path, "create a temporary file beside it", errno);
  }
  return Error(Errc::io, path + ": no free name for a temporary file beside it");
}

}  // namespace sida::inline v0::io_detail
