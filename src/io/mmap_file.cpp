#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <sys/mman.h>
#include <sys/stat.h>
#include <utility>

#include "io/file_descriptor.hpp"
#include "io/open_file.hpp"
#include "sida/core/expert_layout.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0::io_detail {
namespace {

constexpr std::uint64_t kPage = kRecordAlignment;
constexpr std::size_t kGiveBackFrom = std::size_t{64} << 10;  // smaller reads are headers, and may be read again
constexpr std::size_t kStep = std::size_t{4} << 20;           // most that one read holds resident at a time

class MmapFile final : public File {
 public:
  MmapFile(std::string path, OpenedFile file, std::byte* base)
      : path_(std::move(path)), size_bytes_(file.size_bytes), descriptor_(std::move(file.descriptor)), base_(base) {}
  ~MmapFile() override {
    if (base_ != nullptr) ::munmap(base_, static_cast<std::size_t>(size_bytes_));
  }
  MmapFile(MmapFile const&) = delete;
  MmapFile& operator=(MmapFile const&) = delete;

  std::string const& path() const noexcept override { return path_; }
  std::uint64_t size_bytes() const noexcept override { return size_bytes_; }
  Status read_at(std::uint64_t offset, std::span<std::byte> dst) const override;
  ReadStats read_stats() const noexcept override {
    return {bytes_read_.load(std::memory_order_relaxed), 0, reads_.load(std::memory_order_relaxed), 0};
  }

 private:
  Status check_size(std::uint64_t offset, std::uint64_t bytes) const;
  Status copy_large(std::uint64_t offset, std::span<std::byte> dst) const;

  std::string path_;
  std::uint64_t size_bytes_;
  FileDescriptor descriptor_;
  std::byte* base_;
  mutable std::atomic<std::uint64_t> bytes_read_{0};
  mutable std::atomic<std::uint64_t> reads_{0};
};

Status MmapFile::read_at(std::uint64_t offset, std::span<std::byte> dst) const {
  SIDA_TRY(check_range(path_, size_bytes_, offset, dst.size()));
  if (dst.empty()) return {};
  SIDA_TRY(check_size(offset, dst.size()));
  if (dst.size() >= kGiveBackFrom) {
    SIDA_TRY(copy_large(offset, dst));
  } else {
    std::memcpy(dst.data(), base_ + offset, dst.size());
  }
  bytes_read_.fetch_add(dst.size(), std::memory_order_relaxed);
  reads_.fetch_add(1, std::memory_order_relaxed);
  return {};
}

/// Touching a page past the end of a file that shrank raises SIGBUS, so ask first. It can still shrink after.
Status MmapFile::check_size(std::uint64_t offset, std::uint64_t bytes) const {
  struct stat now {};
  if (::fstat(descriptor_.get(), &now) != 0) return system_error(Errc::io, path_, "fstat", errno);
  auto const size = static_cast<std::uint64_t>(now.st_size);
  if (offset + bytes <= size) return {};
  return short_read(path_, offset, size > offset ? size - offset : 0, bytes);
}

Status MmapFile::copy_large(std::uint64_t offset, std::span<std::byte> dst) const {
  for (std::size_t done = 0; done < dst.size();) {
    std::uint64_t const from = offset + done;
    std::size_t const bytes = std::min(kStep, dst.size() - done);
    std::uint64_t const first = from / kPage * kPage;
    std::byte* const pages = base_ + first;
    auto const length = static_cast<std::size_t>(from + bytes - first);
#ifdef MADV_POPULATE_READ
    // Saves the page faults, and turns an unreadable page into an error instead of SIGBUS. Any other answer, such
    // as an older kernel's EINVAL, leaves the pages to the copy.
    if (::madvise(pages, length, MADV_POPULATE_READ) != 0 && (errno == EFAULT || errno == EHWPOISON)) {
      return system_error(Errc::io, path_, "mapped read at offset " + std::to_string(from), errno);
    }
#endif
    std::memcpy(dst.data() + done, base_ + from, bytes);
    // Otherwise every page ever read would count as this process's memory. A neighbour that reads the same
    // pages faults them in again.
    ::madvise(pages, length, MADV_DONTNEED);
    done += bytes;
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<File>> open_mmap_file(std::string path) {
  SIDA_TRY_ASSIGN(OpenedFile file, open_for_reading(path));
  std::byte* base = nullptr;
  if (file.size_bytes != 0) {
    void* const mapped =
        ::mmap(nullptr, static_cast<std::size_t>(file.size_bytes), PROT_READ, MAP_SHARED, file.descriptor.get(), 0);
    if (mapped == MAP_FAILED) return system_error(Errc::io, path, "mmap", errno);
    base = static_cast<std::byte*>(mapped);
  }
  return std::unique_ptr<File>(std::make_unique<MmapFile>(std::move(path), std::move(file), base));
}

}  // namespace sida::inline v0::io_detail
