#include "bench/slow_source.hpp"

#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/memory_source.hpp"

namespace sida::bench::test {
namespace {

using namespace std::chrono_literals;
using sida::test::MemorySource;
using Clock = SlowDisk::Clock;

TEST(SlowDisk, TransfersComeOneAfterTheOtherAndLatenciesOverlap) {
  SlowDisk disk;
  disk.set({.bytes_per_s = 1e6, .latency = 500us});
  auto const now = Clock::now();
  EXPECT_EQ(disk.book(1000, now), now + 1500us);
  EXPECT_EQ(disk.book(1000, now), now + 2500us) << "asked for at the same time";
  EXPECT_EQ(disk.book(2000, now + 2400us), now + 4900us) << "asked for while the disk is busy";
  EXPECT_EQ(disk.book(1000, now + 9000us), now + 10500us) << "asked for while it is idle";
}

TEST(SlowDisk, WithoutABandwidthAddsNothing) {
  SlowDisk disk;
  auto const now = Clock::now();
  EXPECT_EQ(disk.book(1 << 30, now), now);
  disk.set({.bytes_per_s = 1, .latency = 0us});
  EXPECT_GT(disk.book(1, now), now);
  disk.set({});
  EXPECT_EQ(disk.book(1, now), now);
}

TEST(SlowSource, GivesTheBytesOfTheOtherNoSoonerThanTheDisk) {
  constexpr std::size_t kRecord = 4096;
  auto const memory = std::make_shared<MemorySource>(std::vector<std::uint32_t>{4, 4}, kRecord);
  auto const disk = std::make_shared<SlowDisk>();
  disk->set({.bytes_per_s = 1e6, .latency = 1ms});
  SlowSource const slow(memory, disk);
  EXPECT_EQ(slow.experts_per_layer().size(), 2U);
  EXPECT_EQ(slow.record_bytes({1, 3}), kRecord);

  constexpr int kReaders = 4;
  auto const began = Clock::now();
  std::vector<std::vector<std::byte>> records(kReaders, std::vector<std::byte>(kRecord));
  std::vector<std::thread> readers;
  for (std::uint32_t i = 0; i < kReaders; ++i) {
    readers.emplace_back([&, i] { EXPECT_TRUE(slow.read({1, i}, records[i])); });
  }
  for (auto& reader : readers) reader.join();
  EXPECT_GE(Clock::now() - began, 1ms + kReaders * 4096us);
  for (std::uint32_t i = 0; i < kReaders; ++i) EXPECT_TRUE(memory->holds({1, i}, records[i].data()));
}

}  // namespace
}  // namespace sida::bench::test
