#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "io/file_descriptor.hpp"
#include "io/open_file.hpp"
#include "io/staging_pool.hpp"
#include "sida/core/expert_layout.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0::io_detail {
namespace {

constexpr std::uint64_t kPage = kRecordAlignment;          // satisfies O_DIRECT on every block size in use
constexpr std::size_t kStageFrom = std::size_t{64} << 10;  // below it, a copy out of the page cache is cheaper

constexpr std::uint64_t page_floor(std::uint64_t offset) { return offset / kPage * kPage; }

class PreadFile final : public File {
 public:
  PreadFile(std::string path, OpenedFile file, FileDescriptor direct, std::shared_ptr<StagingPool> staging)
      : path_(std::move(path)),
        size_bytes_(file.size_bytes),
        buffered_(std::move(file.descriptor)),
        direct_(std::move(direct)),
        staging_(std::move(staging)),
        use_direct_(static_cast<bool>(direct_)) {}

  std::string const& path() const noexcept override { return path_; }
  std::uint64_t size_bytes() const noexcept override { return size_bytes_; }
  Status read_at(std::uint64_t offset, std::span<std::byte> dst) const override;
  ReadStats read_stats() const noexcept override {
    return {bytes_read_.load(std::memory_order_relaxed), overread_bytes_.load(std::memory_order_relaxed),
            reads_.load(std::memory_order_relaxed), staging_->allocated_bytes()};
  }

 private:
  /// Bytes that were asked for.
  using Asked = Result<std::uint64_t>;

  Asked read_buffered(std::uint64_t offset, std::span<std::byte> dst) const;
  Asked read_direct(std::uint64_t offset, std::span<std::byte> dst, std::size_t needed) const;
  Asked read_staged(std::uint64_t offset, std::span<std::byte> dst) const;

  std::string path_;
  std::uint64_t size_bytes_;
  FileDescriptor buffered_;
  FileDescriptor direct_;
  std::shared_ptr<StagingPool> staging_;
  mutable std::atomic<bool> use_direct_;  // cleared when the file system refuses
  mutable std::atomic<std::uint64_t> bytes_read_{0};
  mutable std::atomic<std::uint64_t> overread_bytes_{0};
  mutable std::atomic<std::uint64_t> reads_{0};
};

Status PreadFile::read_at(std::uint64_t offset, std::span<std::byte> dst) const {
  SIDA_TRY(check_range(path_, size_bytes_, offset, dst.size()));
  if (dst.empty()) return {};
  bool const is_aligned =
      offset % kPage == 0 && dst.size() % kPage == 0 && reinterpret_cast<std::uintptr_t>(dst.data()) % kPage == 0;
  bool const direct = use_direct_.load(std::memory_order_relaxed);
  Asked const asked = direct && is_aligned                 ? read_direct(offset, dst, dst.size())
                      : direct && dst.size() >= kStageFrom ? read_staged(offset, dst)
                                                           : read_buffered(offset, dst);
  if (!asked) return asked.status();
  bytes_read_.fetch_add(*asked, std::memory_order_relaxed);
  overread_bytes_.fetch_add(*asked - dst.size(), std::memory_order_relaxed);
  reads_.fetch_add(1, std::memory_order_relaxed);
  return {};
}

PreadFile::Asked PreadFile::read_buffered(std::uint64_t offset, std::span<std::byte> dst) const {
  std::size_t done = 0;
  while (done < dst.size()) {
    ssize_t const got =
        ::pread(buffered_.get(), dst.data() + done, dst.size() - done, static_cast<off_t>(offset + done));
    if (got > 0) {
      done += static_cast<std::size_t>(got);
    } else if (got == 0) {
      return short_read(path_, offset, done, dst.size());
    } else if (errno != EINTR) {
      return system_error(Errc::io, path_, "read at offset " + std::to_string(offset + done), errno);
    }
  }
  return std::uint64_t{dst.size()};
}

/// `offset`, size and address of `dst` are whole pages; its first `needed` bytes are in the file, the rest may
/// lie past its end.
PreadFile::Asked PreadFile::read_direct(std::uint64_t offset, std::span<std::byte> dst, std::size_t needed) const {
  std::size_t done = 0;
  while (done < needed) {
    ssize_t const got = ::pread(direct_.get(), dst.data() + done, dst.size() - done, static_cast<off_t>(offset + done));
    if (got > 0) done += static_cast<std::size_t>(got);
    if (done >= needed) break;
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) return short_read(path_, offset, done, needed);
    bool const refused = got < 0 && (errno == EINVAL || errno == EOPNOTSUPP);
    if (refused) use_direct_.store(false, std::memory_order_relaxed);
    if (got < 0 && !refused) {
      return system_error(Errc::io, path_, "direct read at offset " + std::to_string(offset + done), errno);
    }
    // Refused, or stopped inside of a page, where no direct read can go on: ordinary reads take over.
    if (refused || done % kPage != 0) {
      SIDA_TRY_ASSIGN(std::uint64_t const rest, read_buffered(offset + done, dst.subspan(done, needed - done)));
      return done + rest;
    }
  }
  return std::uint64_t{dst.size()};
}

PreadFile::Asked PreadFile::read_staged(std::uint64_t offset, std::span<std::byte> dst) const {
  SIDA_TRY_ASSIGN(StagingPool::Chunk chunk, staging_->take());
  std::span<std::byte> const stage = chunk.bytes();
  std::uint64_t const end = offset + dst.size();
  std::uint64_t asked = 0;
  for (std::uint64_t begin = page_floor(offset); begin < end; begin += stage.size()) {
    std::uint64_t const stop = std::min<std::uint64_t>(end, begin + stage.size());  // of what is wanted
    std::size_t const needed = static_cast<std::size_t>(stop - begin);
    SIDA_TRY_ASSIGN(std::uint64_t const part, read_direct(begin, stage.first(slot_bytes_for(needed)), needed));
    asked += part;
    std::uint64_t const from = std::max(begin, offset);
    std::memcpy(dst.data() + (from - offset), stage.data() + (from - begin), static_cast<std::size_t>(stop - from));
  }
  return asked;
}

/// A second descriptor of the same file with O_DIRECT, or none where that is refused.
FileDescriptor open_direct(std::string const& path, FileDescriptor const& same) {
#ifdef O_DIRECT
  FileDescriptor direct(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT));
  struct stat a {};
  struct stat b {};
  bool const is_same = direct && ::fstat(direct.get(), &a) == 0 && ::fstat(same.get(), &b) == 0 &&
                       a.st_dev == b.st_dev && a.st_ino == b.st_ino;
  if (is_same) return direct;
#endif
  return {};
}

}  // namespace

Result<std::unique_ptr<File>> open_pread_file(std::string path, std::shared_ptr<StagingPool> staging) {
  SIDA_TRY_ASSIGN(OpenedFile file, open_for_reading(path));
  FileDescriptor direct = open_direct(path, file.descriptor);
  return std::unique_ptr<File>(
      std::make_unique<PreadFile>(std::move(path), std::move(file), std::move(direct), std::move(staging)));
}

}  // namespace sida::inline v0::io_detail
