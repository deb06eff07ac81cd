#include "sida/io/file.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <sys/resource.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/staging_pool.hpp"
#include "sida/core/expert_layout.hpp"
#include "sida/core/memory.hpp"
#include "tests/io/temp_dir.hpp"

namespace sida {
namespace {

using ::testing::HasSubstr;
using testing::TempDir;

std::string pattern(std::size_t bytes) {
  std::string text(bytes, '\0');
  std::uint64_t state = 1;
  for (char& c : text) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    c = static_cast<char>(state >> 56);
  }
  return text;
}

class FileRead : public ::testing::TestWithParam<ReadPath> {
 protected:
  std::unique_ptr<File> open(std::string const& content) {
    testing::write_file(path_, content);
    auto file = File::open(path_, GetParam());
    EXPECT_TRUE(file) << file.message();
    return file ? *std::move(file) : nullptr;
  }
  /// A destination whose address is a multiple of 4 KiB plus `shift`.
  std::span<std::byte> room(std::size_t bytes, std::size_t shift = 0) {
    buffer_ = *Buffer::allocate(memory_, bytes + shift + 1, kRecordAlignment);
    return buffer_.bytes().subspan(shift, bytes);
  }

  TempDir folder_;
  std::string path_ = folder_ / "data.bin";
  HostMemory memory_;
  Buffer buffer_;
};

TEST_P(FileRead, GivesEveryByteAtEveryAlignment) {
  std::string const content = pattern((std::size_t{3} << 20) + 1234);
  auto const file = open(content);
  ASSERT_EQ(file->size_bytes(), content.size());
  ASSERT_EQ(file->path(), path_);
  for (std::size_t const offset : {0UL, 1UL, 4095UL, 4096UL, 8192UL, 70'001UL, 1UL << 20}) {
    for (std::size_t const bytes : {0UL, 1UL, 100UL, 4096UL, 65'535UL, 65'536UL, 69'632UL, 1UL << 20, 2'000'003UL}) {
      for (std::size_t const shift : {0UL, 64UL, 1UL}) {
        auto const dst = room(bytes, shift);
        Status const status = file->read_at(offset, dst);
        ASSERT_TRUE(status) << status.message();
        ASSERT_EQ(std::memcmp(dst.data(), content.data() + offset, bytes), 0) << offset << " " << bytes << " " << shift;
      }
    }
  }
}

TEST_P(FileRead, ReachesTheLastByte) {
  std::string const content = pattern(300'001);
  auto const file = open(content);
  for (std::size_t const bytes : {1UL, 100UL, 4097UL, 65'536UL, 100'000UL, 300'001UL}) {
    auto const dst = room(bytes);
    ASSERT_TRUE(file->read_at(content.size() - bytes, dst));
    ASSERT_EQ(std::memcmp(dst.data(), content.data() + content.size() - bytes, bytes), 0) << bytes;
  }
}

TEST_P(FileRead, PastTheEndIsAnIoErrorThatNamesPathAndOffset) {
  auto const file = open(pattern(10'000));
  for (auto const& [offset, bytes] : {std::pair(9'999UL, 2UL),
                                      {10'000UL, 1UL},
                                      {20'000UL, 1UL},
                                      {~0UL, 4096UL},
                                      {0UL, 100'000UL},
                                      {4096UL, 8192UL}}) {
    Status const status = file->read_at(offset, room(bytes));
    EXPECT_EQ(status.code(), Errc::io);
    EXPECT_THAT(status.message(), HasSubstr(path_));
    EXPECT_THAT(status.message(), HasSubstr("offset " + std::to_string(offset)));
  }
  EXPECT_TRUE(file->read_at(10'000, room(0)));
}

TEST_P(FileRead, OpensAnEmptyFile) {
  auto const file = open("");
  EXPECT_EQ(file->size_bytes(), 0U);
  EXPECT_TRUE(file->read_at(0, {}));
  EXPECT_EQ(file->read_at(0, room(1)).code(), Errc::io);
}

TEST_P(FileRead, AFileThatShrankIsAnError) {
  auto const file = open(pattern(1 << 20));
  ASSERT_EQ(::truncate(path_.c_str(), 5000), 0);
  for (std::size_t const bytes : {100UL, 4096UL, 200'000UL}) {
    Status const status = file->read_at(8192, room(bytes));
    EXPECT_EQ(status.code(), Errc::io);
    EXPECT_THAT(status.message(), HasSubstr("short read at offset 8192"));
    EXPECT_THAT(status.message(), HasSubstr(path_));
  }
  EXPECT_TRUE(file->read_at(0, room(5000)));
}

TEST_P(FileRead, GrowthAfterOpeningIsNotSeen) {
  auto const file = open(pattern(5000));
  std::ofstream(path_, std::ios::app) << pattern(5000);
  EXPECT_EQ(file->size_bytes(), 5000U);
  EXPECT_EQ(file->read_at(4000, room(2000)).code(), Errc::io);
}

TEST_P(FileRead, ServesFourThreadsAtOnce) {
  std::string const content = pattern((std::size_t{4} << 20) + 77);
  auto const file = open(content);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::vector<std::byte> dst(300'000);
      for (std::size_t i = 0; i < 12; ++i) {
        std::size_t const offset = (t * 12 + i) * 77'777 % (content.size() - dst.size());
        if (!file->read_at(offset, dst) || std::memcmp(dst.data(), content.data() + offset, dst.size()) != 0) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(file->read_stats().reads, 48U);
}

TEST_P(FileRead, CountsBytesAndReads) {
  auto const file = open(pattern(1 << 20));
  EXPECT_EQ(file->read_stats().reads, 0U);
  ASSERT_TRUE(file->read_at(4096, room(8192)));
  ASSERT_TRUE(file->read_at(5, room(100'000, 3)));
  ASSERT_FALSE(file->read_at(1 << 20, room(1)));
  ReadStats const stats = file->read_stats();
  EXPECT_EQ(stats.reads, 2U);
  EXPECT_EQ(stats.bytes_read - stats.overread_bytes, 108'192U);
  EXPECT_LE(stats.overread_bytes, 2 * 4096U);
  EXPECT_LE(stats.staging_bytes, io_detail::StagingPool::kChunks * io_detail::StagingPool::kChunkBytes);
}

TEST_P(FileRead, WhatIsNoRegularFileIsRefused) {
  EXPECT_EQ(File::open(folder_ / "absent", GetParam()).code(), Errc::not_found);
  EXPECT_EQ(File::open(folder_.path(), GetParam()).code(), Errc::io);
  testing::write_file(path_, "x");
  EXPECT_EQ(File::open(path_ + "/below", GetParam()).code(), Errc::not_found);
  EXPECT_EQ(File::open(std::string(path_ + '\0' + "x"), GetParam()).code(), Errc::not_found);
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  auto const pipe = File::open(folder_ / "pipe", GetParam());  // must not wait for a writer
  EXPECT_EQ(pipe.code(), Errc::io);
  EXPECT_THAT(pipe.message(), HasSubstr("pipe"));
}

INSTANTIATE_TEST_SUITE_P(File, FileRead, ::testing::Values(ReadPath::pread, ReadPath::mmap),
                         [](auto const& instance) { return instance.param == ReadPath::pread ? "pread" : "mmap"; });

TEST(PreadFile, AlignedReadsNeedNoStaging) {
  TempDir const folder;
  testing::write_file(folder / "f", pattern(1 << 20));
  auto const file = *File::open(folder / "f", ReadPath::pread);
  HostMemory memory;
  Buffer slot = *Buffer::allocate(memory, 1 << 19, kRecordAlignment);
  ASSERT_TRUE(file->read_at(1 << 19, slot.bytes()));
  EXPECT_EQ(file->read_stats().overread_bytes, 0U);
  EXPECT_EQ(file->read_stats().staging_bytes, 0U);
}

/// Kilobytes of this process's resident memory that are file pages.
std::size_t resident_file_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssFile:")) return std::stoul(line.substr(8));
  }
  return 0;
}

TEST(MmapFile, LargeReadsDoNotStayResident) {
  TempDir const folder;
  std::size_t const bytes = std::size_t{32} << 20;
  testing::write_file(folder / "f", pattern(bytes));
  auto const file = *File::open(folder / "f", ReadPath::mmap);
  std::vector<std::byte> dst(bytes);
  std::size_t const before = resident_file_kib();
  ASSERT_TRUE(file->read_at(0, dst));
  EXPECT_LT(resident_file_kib(), before + 8192);
}

}  // namespace
}  // namespace sida
