#include "cli/dataset_lines.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <string_view>
#include <unistd.h>
#include <utility>

#include "cli/dataset.hpp"
#include "sida/detail/try.hpp"

namespace sida::cli {
namespace {

/// How long a read may wait before it asks again whether it is cancelled: a signal may come just before it waits.
constexpr int kPatienceMs = 100;
constexpr std::size_t kBlockBytes = std::size_t{64} << 10;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

}  // namespace

Result<LineReader> LineReader::open(std::string const& path, std::function<bool()> cancelled) {
  LineReader reader;
  reader.cancelled_ = std::move(cancelled);
  reader.name_ = path == "-" ? "<stdin>" : path;
  if (path == "-") {
    reader.fd_ = STDIN_FILENO;
    return reader;
  }
  // The open of a FIFO would wait for a writer, and no cancellation reach it.
  reader.fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (reader.fd_ < 0) {
    return Error(errno == ENOENT ? Errc::not_found : Errc::io, path + ": cannot open: " + std::strerror(errno));
  }
  return reader;
}

LineReader LineReader::from_bytes(std::string bytes, std::string name) {
  LineReader reader;
  reader.block_ = std::move(bytes);
  reader.name_ = std::move(name);
  return reader;
}

LineReader::LineReader(LineReader&& other) noexcept { swap(other); }

LineReader& LineReader::operator=(LineReader&& other) noexcept {
  LineReader(std::move(other)).swap(*this);
  return *this;
}

LineReader::~LineReader() {
  if (fd_ > STDIN_FILENO) ::close(fd_);
}

void LineReader::swap(LineReader& other) noexcept {
  std::swap(fd_, other.fd_);
  name_.swap(other.name_);
  cancelled_.swap(other.cancelled_);
  block_.swap(other.block_);
  std::swap(used_, other.used_);
  std::swap(number_, other.number_);
}

Result<bool> LineReader::refill() {
  if (fd_ < 0) return false;
  block_.resize(kBlockBytes);
  used_ = 0;
  for (;;) {
    if (cancelled_ && cancelled_()) return Error(Errc::cancelled, name_ + ": reading was cancelled");
    pollfd wanted{.fd = fd_, .events = POLLIN, .revents = 0};
    int const ready = ::poll(&wanted, 1, kPatienceMs);
    if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
    ssize_t const count = ::read(fd_, block_.data(), block_.size());
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count < 0) return Error(Errc::io, name_ + ": cannot read: " + std::strerror(errno));
    block_.resize(static_cast<std::size_t>(count));
    return count > 0;
  }
}

Result<bool> LineReader::next(std::string& line) {
  line.clear();
  bool has_line = false;
  for (;;) {
    if (used_ == block_.size()) {
      SIDA_TRY_ASSIGN(bool const more, refill());
      if (!more) break;
    }
    if (!has_line) ++number_;
    has_line = true;
    auto const end = block_.find('\n', used_);
    std::size_t const count = (end == std::string::npos ? block_.size() : end) - used_;
    if (count > kMaxLineBytes - line.size()) {
      return Error(Errc::corrupt, where() + ": line longer than " + std::to_string(kMaxLineBytes) + " bytes");
    }
    line.append(block_, used_, count);
    used_ += count + (end == std::string::npos ? 0 : 1);
    if (end != std::string::npos) break;
  }
  if (line.ends_with('\r')) line.pop_back();
  if (number_ == 1 && line.starts_with(kByteOrderMark)) line.erase(0, kByteOrderMark.size());
  return has_line;
}

}  // namespace sida::cli
