// A program of its own: it puts its own pread, pwrite, fsync and rename in front of the C library's, so that what
// disks do once in a year happens at the call that a test picks.

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <memory>
#include <string>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sida/core/expert_layout.hpp"
#include "sida/core/memory.hpp"
#include "sida/io/file.hpp"
#include "sida/io/packed.hpp"
#include "tests/io/tiny_checkpoint.hpp"

namespace {

/// What the system calls of this program do. All off at first.
struct Faults {
  std::atomic<int> fail_pread_in{-1};  // calls until one fails with `error`
  std::atomic<int> fail_write_in{-1};  // of pwrite, fsync and rename together
  std::atomic<int> error{EIO};
  std::atomic<bool> refuse_direct{false};      // O_DIRECT reads answer EINVAL
  std::atomic<std::size_t> at_most{SIZE_MAX};  // bytes that one pread or pwrite moves
  std::atomic<int> directs{0};
};
Faults faults;

struct FaultsOff {
  ~FaultsOff() {
    faults.fail_pread_in = -1;
    faults.fail_write_in = -1;
    faults.error = EIO;
    faults.refuse_direct = false;
    faults.at_most = SIZE_MAX;
    faults.directs = 0;
  }
};

bool strikes(std::atomic<int>& countdown) {
  if (countdown < 0 || countdown.fetch_sub(1) != 0) return false;
  errno = faults.error;
  return true;
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) ssize_t pread(int fd, void* data, size_t size, off_t offset) {
  if (strikes(faults.fail_pread_in)) return -1;
  if ((::fcntl(fd, F_GETFL) & O_DIRECT) != 0) {
    ++faults.directs;
    if (faults.refuse_direct) {
      errno = EINVAL;
      return -1;
    }
  }
  return ::syscall(SYS_pread64, fd, data, std::min(size, faults.at_most.load()), offset);
}

__attribute__((visibility("default"))) ssize_t pwrite(int fd, void const* data, size_t size, off_t offset) {
  if (strikes(faults.fail_write_in)) return -1;
  return ::syscall(SYS_pwrite64, fd, data, std::min(size, faults.at_most.load()), offset);
}

__attribute__((visibility("default"))) int fsync(int fd) {
  if (strikes(faults.fail_write_in)) return -1;
  return static_cast<int>(::syscall(SYS_fsync, fd));
}

__attribute__((visibility("default"))) int rename(char const* from, char const* to) noexcept {
  if (strikes(faults.fail_write_in)) return -1;
  return static_cast<int>(::syscall(SYS_rename, from, to));
}

}  // extern "C"

namespace sida {
namespace {

using ::testing::HasSubstr;
using testing::TinyCheckpoint;

class PreadFaults : public ::testing::Test {
 protected:
  void SetUp() override {
    content_ = testing::noise((std::size_t{2} << 20) + 777, 1);
    testing::write_file(path_, content_);
    file_ = *File::open(path_, ReadPath::pread);
    buffer_ = *Buffer::allocate(memory_, std::size_t{4} << 20, kRecordAlignment);
  }
  Status read(std::size_t offset, std::size_t bytes, std::size_t shift = 0) {
    dst_ = buffer_.bytes().subspan(shift, bytes);
    return file_->read_at(offset, dst_);
  }
  bool is_right(std::size_t offset) const {
    return std::memcmp(dst_.data(), content_.data() + offset, dst_.size()) == 0;
  }

  FaultsOff off_;
  testing::TempDir folder_;
  std::string path_ = folder_ / "f";
  std::string content_;
  std::unique_ptr<File> file_;
  HostMemory memory_;
  Buffer buffer_;
  std::span<std::byte> dst_;
};

TEST_F(PreadFaults, InterruptedReadsGoOn) {
  faults.error = EINTR;
  for (auto const& [offset, bytes, shift] : {std::tuple(0, 100, 0), {4096, 8192, 0}, {100, 1'500'000, 1}}) {
    for (int call = 0; call < 2; ++call) {
      faults.fail_pread_in = call;
      Status const status = read(offset, bytes, shift);
      ASSERT_TRUE(status) << status.message();
      EXPECT_TRUE(is_right(offset));
    }
  }
}

TEST_F(PreadFaults, ShortReadsGoOn) {
  for (std::size_t const at_most : {999UL, 4096UL, 5000UL, 65'536UL}) {
    faults.at_most = at_most;
    for (auto const& [offset, bytes, shift] :
         {std::tuple(0, 10'000, 0), {4096, 81'920, 0}, {100, 1'500'000, 1}, {1'000'000, 1'097'929, 0}}) {
      Status const status = read(offset, bytes, shift);
      ASSERT_TRUE(status) << status.message();
      EXPECT_TRUE(is_right(offset)) << at_most << " " << offset;
    }
  }
}

TEST_F(PreadFaults, AFileSystemThatRefusesDirectReadsIsAskedOnce) {
  faults.refuse_direct = true;
  ASSERT_TRUE(read(4096, 8192));
  EXPECT_TRUE(is_right(4096));
  int const directs = faults.directs;
  if (directs == 0) GTEST_SKIP() << "no O_DIRECT where temporary files are";
  ASSERT_TRUE(read(100, 1'500'000, 1));
  EXPECT_TRUE(is_right(100));
  EXPECT_EQ(faults.directs, directs);
  EXPECT_EQ(file_->read_stats().overread_bytes, 0U);
}

TEST_F(PreadFaults, ARefusalInTheMiddleOfStagingIsNoError) {
  faults.at_most = 65'536;
  faults.error = EINVAL;
  faults.fail_pread_in = 3;
  ASSERT_TRUE(read(100, 1'500'000, 1));
  EXPECT_TRUE(is_right(100));
}

TEST_F(PreadFaults, ADiskErrorNamesPathOffsetAndReason) {
  for (auto const& [offset, bytes] : {std::pair(12'288, 8192), {7, 100}, {8192, 1'500'000}}) {
    faults.fail_pread_in = 0;
    Status const status = read(offset, bytes);
    EXPECT_EQ(status.code(), Errc::io);
    EXPECT_THAT(status.message(), HasSubstr(path_));
    EXPECT_THAT(status.message(), HasSubstr("offset " + std::to_string(offset)));
    EXPECT_THAT(status.message(), HasSubstr("Input/output error"));
    EXPECT_TRUE(read(offset, bytes));  // a retry may succeed
    EXPECT_TRUE(is_right(offset));
  }
}

class WriteFaults : public ::testing::Test {
 protected:
  FaultsOff off_;
  TinyCheckpoint checkpoint_;
};

TEST_F(WriteFaults, AFailureOfAnyCallLeavesTheTargetAlone) {
  faults.error = ENOSPC;
  testing::write_file(checkpoint_.packed_path(), "what was there before");
  for (int call = 0; call < 200; ++call) {
    faults.fail_write_in = call;
    Status const status = checkpoint_.pack();
    if (status) {
      faults.fail_write_in = -1;
      EXPECT_GT(call, 15);  // config, tokenizer, dense, records, index, header, fsync, rename, fsync
      EXPECT_TRUE(PackedFile::open(checkpoint_.packed_path(), ReadPath::pread));
      return;
    }
    EXPECT_EQ(status.code(), Errc::io);
    EXPECT_THAT(status.message(), HasSubstr(checkpoint_.packed_path()));
    EXPECT_EQ(checkpoint_.folder.names().size(), 2U) << call;
    bool const is_last = status.message().find("fsync its folder") != std::string::npos;
    if (!is_last) {
      EXPECT_EQ(testing::read_file(checkpoint_.packed_path()), "what was there before") << call;
    }
  }
  FAIL() << "never finished";
}

TEST_F(WriteFaults, NothingIsCalledWrittenThatMayYetFailForAFullDisk) {
  auto const dense = checkpoint_.tensors();
  auto const experts = checkpoint_.experts();
  PackInput pack = checkpoint_.pack_input(*dense, *experts);
  bool is_written = false;
  pack.written = [&](std::uint64_t) {
    is_written = true;
    return Status();
  };
  faults.error = ENOSPC;
  for (int call = 0; call < 200; ++call) {
    is_written = false;
    faults.fail_write_in = call;
    Status const status = write_packed(checkpoint_.packed_path(), pack);
    bool const names_it = status || status.message().find("rename") != std::string::npos ||
                          status.message().find("fsync its folder") != std::string::npos;
    EXPECT_EQ(is_written, names_it) << call << ": " << status.message();
    if (status) return;
  }
  FAIL() << "never finished";
}

TEST_F(WriteFaults, ShortAndInterruptedWritesGoOn) {
  ASSERT_TRUE(checkpoint_.pack());
  std::string const whole = testing::read_file(checkpoint_.packed_path());
  faults.at_most = 5000;
  faults.error = EINTR;
  faults.fail_write_in = 3;
  Status const status = checkpoint_.pack();
  ASSERT_TRUE(status) << status.message();
  EXPECT_TRUE(testing::read_file(checkpoint_.packed_path()) == whole);
}

}  // namespace
}  // namespace sida
