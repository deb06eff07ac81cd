#include "sida/core/memory.hpp"

#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace {

using sida::Buffer;
using sida::Errc;
using sida::HostMemory;
using sida::Result;

TEST(HostMemory, AlignsAndGivesUsableBytes) {
  HostMemory memory;
  std::size_t const huge = std::size_t{2} << 20;
  for (std::size_t bytes : {std::size_t{1}, std::size_t{4096}, huge - 1, huge, huge + 1, 3 * huge + 5}) {
    for (std::size_t alignment : {std::size_t{1}, std::size_t{64}, std::size_t{4096}, huge}) {
      auto const data = memory.allocate(bytes, alignment);
      ASSERT_TRUE(data) << data.message();
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(*data) % alignment, 0U) << bytes << " at " << alignment;
      std::memset(*data, 0x5A, bytes);
      memory.deallocate(*data, bytes, alignment);
    }
  }
  EXPECT_EQ(memory.space(), sida::Tier::host);
}

TEST(HostMemory, AnswersImpossibleSizesWithOutOfMemory) {
  HostMemory memory;
  std::size_t const most = std::numeric_limits<std::size_t>::max();
  for (std::size_t bytes :
       {most, most - 4095, most / 2, std::size_t{1} << 62, std::size_t{1} << 48, (std::size_t{1} << 47) - 4096}) {
    auto const data = memory.allocate(bytes, 64);
    ASSERT_FALSE(data) << bytes;
    EXPECT_EQ(data.code(), Errc::out_of_memory);
    EXPECT_NE(data.message().find(std::to_string(bytes)), std::string::npos) << data.message();
  }
}

TEST(HostMemory, RejectsAlignmentsItCannotGive) {
  HostMemory memory;
  for (std::size_t alignment : {std::size_t{0}, std::size_t{3}, std::size_t{96}, std::size_t{4} << 20}) {
    EXPECT_EQ(memory.allocate(64, alignment).code(), Errc::invalid_argument) << alignment;
  }
}

/// Counts what is out, and says no on request.
class CountingMemory final : public sida::MemoryResource {
 public:
  Result<void*> allocate(std::size_t bytes, std::size_t alignment) override {
    if (refuses) return sida::Error(Errc::out_of_memory, "refused");
    ++blocks;
    bytes_out += bytes;
    return host_.allocate(bytes, alignment);
  }
  void deallocate(void* data, std::size_t bytes, std::size_t alignment) noexcept override {
    --blocks;
    bytes_out -= bytes;
    host_.deallocate(data, bytes, alignment);
  }
  sida::Tier space() const noexcept override { return sida::Tier::host; }

  int blocks = 0;
  std::size_t bytes_out = 0;
  bool refuses = false;

 private:
  HostMemory host_;
};

TEST(Buffer, GivesBackWhatItTook) {
  CountingMemory memory;
  {
    auto buffer = Buffer::allocate(memory, 1000, 4096);
    ASSERT_TRUE(buffer);
    EXPECT_EQ(buffer->size_bytes(), 1000U);
    EXPECT_EQ(buffer->bytes().size(), 1000U);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer->bytes().data()) % 4096, 0U);
    EXPECT_EQ(memory.blocks, 1);
  }
  EXPECT_EQ(memory.blocks, 0);
  EXPECT_EQ(memory.bytes_out, 0U);
}

TEST(Buffer, MovesItsBlock) {
  CountingMemory memory;
  Buffer first = *Buffer::allocate(memory, 100);
  auto const* const data = first.bytes().data();
  Buffer second = std::move(first);
  EXPECT_EQ(second.bytes().data(), data);
  EXPECT_EQ(first.size_bytes(), 0U);  // NOLINT(bugprone-use-after-move): empty by contract

  Buffer third = *Buffer::allocate(memory, 200);
  EXPECT_EQ(memory.blocks, 2);
  third = std::move(second);
  EXPECT_EQ(memory.blocks, 1) << "the block that was assigned over is given back";
  EXPECT_EQ(third.bytes().data(), data);

  Buffer& same = third;
  third = std::move(same);
  EXPECT_EQ(third.bytes().data(), data) << "assigned to itself";
  EXPECT_EQ(memory.blocks, 1);
}

TEST(Buffer, PassesARefusalOn) {
  CountingMemory memory;
  memory.refuses = true;
  EXPECT_EQ(Buffer::allocate(memory, 8).code(), Errc::out_of_memory);
  EXPECT_EQ(memory.blocks, 0);
}

TEST(Buffer, SaysWhatTheMemoryWasFor) {
  HostMemory memory;
  std::size_t const too_much = std::size_t{1} << 60;
  EXPECT_EQ(Buffer::allocate(memory, too_much, 64, "slots of 3 experts").error().message(),
            "slots of 3 experts: out of host memory: " + std::to_string(too_much) + " bytes asked for");
}

TEST(Buffer, ReservesWhatItDoesNotHave) {
  CountingMemory memory;
  Buffer buffer;
  ASSERT_TRUE(buffer.reserve(memory, 1000, 64, "a test"));
  std::byte const* const data = buffer.bytes().data();
  ASSERT_TRUE(buffer.reserve(memory, 500, 64, "a test"));
  EXPECT_EQ(buffer.bytes().data(), data) << "it holds as many";
  ASSERT_TRUE(buffer.reserve(memory, 2000, 64, "a test"));
  EXPECT_EQ(buffer.size_bytes(), 2000U);
  EXPECT_EQ(memory.bytes_out, 2000U) << "the first went back";
  memory.refuses = true;
  EXPECT_EQ(buffer.reserve(memory, 4000, 64, "a test").code(), Errc::out_of_memory);
  EXPECT_EQ(buffer.size_bytes(), 0U);
  EXPECT_EQ(memory.blocks, 0);
}

TEST(Buffer, IsEmptyByDefault) {
  Buffer buffer;
  EXPECT_EQ(buffer.size_bytes(), 0U);
  EXPECT_TRUE(buffer.bytes().empty());
}

}  // namespace
