#include "io/atomic_file.hpp"

#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <unistd.h>
#include <utility>

#include "io/output_target.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0::io_detail {

Result<AtomicFile> AtomicFile::create(std::string const& path) {
  SIDA_TRY_ASSIGN(OutputTarget target, find_output_target(path));
  switch (target.kind) {
    case OutputTarget::Kind::file: break;
    case OutputTarget::Kind::folder: return Error(Errc::io, path + ": is a folder");
    case OutputTarget::Kind::special: return Error(Errc::io, path + ": not a regular file");
    case OutputTarget::Kind::descriptor: return Error(Errc::io, path + ": an open file, not the name of one");
  }
  AtomicFile file;
  file.path_ = std::move(target.path);
  file.folder_ = FileDescriptor(::open(folder_of(file.path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!file.folder_) {
    int const error = errno;
    return system_error(error == ENOENT || error == ENOTDIR ? Errc::not_found : Errc::io, path, "open its folder",
                        error);
  }
  SIDA_TRY_ASSIGN(TemporaryFile temporary, create_temporary_beside(file.path_));
  file.file_ = std::move(temporary.descriptor);
  file.temporary_ = std::move(temporary.path);
  return file;
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})),
      folder_(std::move(other.folder_)),
      file_(std::move(other.file_)) {}

AtomicFile::~AtomicFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Status AtomicFile::reserve(std::uint64_t bytes) {
  if (::ftruncate(file_.get(), static_cast<off_t>(bytes)) != 0)
    return system_error(Errc::io, path_, "ftruncate", errno);
#ifdef __linux__
  // Not every file system can; a full disk then shows at the write.
  if (bytes != 0 && ::fallocate(file_.get(), 0, 0, static_cast<off_t>(bytes)) != 0 && errno == ENOSPC) {
    return system_error(Errc::io, path_, "reserve " + std::to_string(bytes) + " bytes", ENOSPC);
  }
#endif
  return {};
}

Status AtomicFile::write_at(std::uint64_t offset, std::span<std::byte const> bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    ssize_t const put =
        ::pwrite(file_.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (put > 0) {
      done += static_cast<std::size_t>(put);
    } else if (put == 0 || errno != EINTR) {
      return system_error(Errc::io, path_, "write at offset " + std::to_string(offset + done), put == 0 ? EIO : errno);
    }
  }
  return {};
}

Status AtomicFile::finish() {
  if (::fsync(file_.get()) != 0) return system_error(Errc::io, path_, "fsync", errno);
  // What was written is not what is read next: leave the page cache to others.
  (void)::posix_fadvise(file_.get(), 0, 0, POSIX_FADV_DONTNEED);
  return {};
}

Status AtomicFile::publish() {
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return system_error(Errc::io, path_, "rename", errno);
  temporary_.clear();
  // Some file systems don't sync folders and say EINVAL.
  if (::fsync(folder_.get()) != 0 && errno != EINVAL) return system_error(Errc::io, path_, "fsync its folder", errno);
  return {};
}

}  // namespace sida::inline v0::io_detail
