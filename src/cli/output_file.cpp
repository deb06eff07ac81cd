#include "cli/output_file.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>
#include <utility>

#include "io/output_target.hpp"
#include "sida/detail/try.hpp"

namespace sida::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kBufferBytes = std::size_t{1} << 20;

std::string system_message() { return std::strerror(errno); }

}  // namespace

Result<OutputFile> OutputFile::create(std::string const& path) {
  using Kind = io_detail::OutputTarget::Kind;
  SIDA_TRY_ASSIGN(auto target, io_detail::find_output_target(path));
  if (target.kind == Kind::folder) return Error(Errc::io, path + ": is a folder");
  OutputFile file;
  file.path_ = path;
  if (target.kind != Kind::file) {
    int const fd = target.descriptor >= 0 ? ::fcntl(target.descriptor, F_DUPFD_CLOEXEC, 0)
                                          : ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) return Error(Errc::io, path + ": cannot open: " + system_message());
    file.fd_ = io_detail::FileDescriptor(fd);
    file.first_ = ::lseek(fd, 0, SEEK_CUR);
    return file;
  }
  auto temporary = io_detail::create_temporary_beside(target.path);
  if (!temporary && target.path == path) return std::move(temporary).error();
  if (!temporary) return std::move(temporary).error().with_context(path);
  file.fd_ = std::move(temporary->descriptor);
  file.temporary_ = std::move(temporary->path);
  file.guard_ = RemovedWhenKilled(file.temporary_);
  file.target_ = std::move(target.path);
  return file;
}

OutputFile::~OutputFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void OutputFile::swap(OutputFile& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(first_, other.first_);
  path_.swap(other.path_);
  target_.swap(other.target_);
  temporary_.swap(other.temporary_);
  std::swap(guard_, other.guard_);
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
    ssize_t const written = ::write(fd_.get(), rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failure("write");
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
  buffer_.clear();
  return {};
}

Status OutputFile::overwrite(std::uint64_t offset, std::span<std::byte const> bytes) {
  SIDA_TRY(flush());
  offset += static_cast<std::uint64_t>(first_);
  while (!bytes.empty()) {
    ssize_t const written = ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failure("write");
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += static_cast<std::uint64_t>(written);
  }
  return {};
}

bool OutputFile::can_overwrite() const noexcept { return first_ >= 0 && (::fcntl(fd_.get(), F_GETFL) & O_APPEND) == 0; }

Status OutputFile::finish() {
  SIDA_TRY(flush());
  // A disk that is full may say so no earlier.
  if (!temporary_.empty() && ::fsync(fd_.get()) != 0) return failure("fsync");
  if (::close(fd_.release()) != 0) return failure("close");
  return {};
}

Status OutputFile::publish() {
  if (temporary_.empty()) return {};
  if (std::rename(temporary_.c_str(), target_.c_str()) != 0) return failure("rename");
  temporary_.clear();
  guard_ = {};
  return {};
}

Status OutputFile::remove_old() {
  if (target_.empty() || ::unlink(target_.c_str()) == 0 || errno == ENOENT) return {};
  return failure("remove the old file");
}

Status OutputFile::commit() {
  SIDA_TRY(finish());
  return publish();
}

namespace {

/// Both lead to one regular file. Devices may well be read and written.
bool is_same_file(fs::path const& a, fs::path const& b) {
  std::error_code error;
  return fs::is_regular_file(a, error) && fs::equivalent(a, b, error) && !error;
}

bool is_input(std::string const& output, std::string const& input) {
  std::error_code error;
  if (!fs::is_directory(input, error)) return is_same_file(output, input);
  for (fs::directory_iterator entry(input, error), end; !error && entry != end; entry.increment(error)) {
    if (is_same_file(output, entry->path())) return true;
  }
  return false;
}

/// What is written to one of them would be lost to the other. Devices, pipes and open descriptors take both.
bool is_one_place(std::string const& a, std::string const& b) {
  using Kind = io_detail::OutputTarget::Kind;
  auto const to = io_detail::find_output_target(a);
  auto const other = io_detail::find_output_target(b);
  if (!to || !other) return a == b;
  if (to->kind != other->kind) return is_same_file(a, b);  // a file by its name, and by an open descriptor
  if (to->kind != Kind::file) return false;
  std::error_code error;  // neither file needs to be there yet
  fs::path const x = to->path, y = other->path;
  return x.filename() == y.filename() &&
         (x == y || fs::equivalent(io_detail::folder_of(to->path), io_detail::folder_of(other->path), error));
}

}  // namespace

Status require_apart(std::span<std::string const> outputs, std::span<std::string const> inputs) {
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].empty()) continue;
    for (std::string const& input : inputs) {
      if (input.empty() || !is_input(outputs[i], input)) continue;
      return {Errc::invalid_argument, outputs[i] + ": would replace what is read from " + input};
    }
    for (std::size_t j = 0; j < i; ++j) {
      if (outputs[j].empty() || !is_one_place(outputs[i], outputs[j])) continue;
      std::string const as = outputs[j] == outputs[i] ? "" : ", also as " + outputs[j];
      return {Errc::invalid_argument, outputs[i] + ": is to be written twice" + as};
    }
  }
  return {};
}

Status require_folder_apart(std::string const& folder, std::span<std::string const> inputs) {
  if (folder.empty()) return {};
  for (std::string const& input : inputs) {
    std::error_code error;
    if (input.empty() || !fs::exists(input, error)) continue;
    fs::path const read_from = fs::is_directory(input, error) ? input : io_detail::folder_of(input);
    if (!fs::equivalent(folder, read_from, error) || error) continue;
    return {Errc::invalid_argument, folder + ": is where " + input + " is read from; give a folder of its own"};
  }
  return {};
}

}  // namespace sida::cli
