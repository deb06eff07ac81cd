#include "sida/cuda/memory.hpp"

#include <cstring>

#include "tests/cuda/device_fixture.hpp"

namespace sida {
namespace {

class CudaMemory : public test::DeviceTest {};

TEST_F(CudaMemory, PinnedBytesTravelBothWays) {
  cuda::PinnedMemory memory;
  constexpr std::size_t kBytes = (std::size_t{5} << 20) + 123;
  Buffer there = test::take(Buffer::allocate(memory, kBytes));
  Buffer back = test::take(Buffer::allocate(memory, kBytes, 4096));
  for (std::size_t i = 0; i < kBytes; ++i) there.bytes()[i] = static_cast<std::byte>(i * 7 + i / 256);
  test::DeviceBytes device(kBytes);
  auto const stream = test::take(cuda::Stream::create());
  test::must(
      cudaMemcpyAsync(device.bytes().data(), there.bytes().data(), kBytes, cudaMemcpyHostToDevice, stream.get()));
  test::must(cudaMemcpyAsync(back.bytes().data(), device.bytes().data(), kBytes, cudaMemcpyDeviceToHost, stream.get()));
  test::must(stream.synchronize());
  EXPECT_EQ(std::memcmp(there.bytes().data(), back.bytes().data(), kBytes), 0);
}

// Large enough that several threads touch it.
TEST_F(CudaMemory, MuchPinnedMemoryIsThereToItsLastByte) {
  cuda::PinnedMemory memory;
  constexpr std::size_t kBytes = (std::size_t{600} << 20) + 5;
  Buffer buffer = test::take(Buffer::allocate(memory, kBytes));
  EXPECT_EQ(buffer.bytes().size(), kBytes);
  test::DeviceBytes device(1);
  auto const stream = test::take(cuda::Stream::create());
  for (std::size_t const at : {std::size_t{0}, kBytes / 2, kBytes - 1}) {
    test::must(cudaMemcpyAsync(&buffer.bytes()[at], device.bytes().data(), 1, cudaMemcpyDeviceToHost, stream.get()));
    test::must(stream.synchronize());
    EXPECT_EQ(buffer.bytes()[at], std::byte{0xFF});
  }
}

TEST_F(CudaMemory, TooMuchIsAnErrorWithItsSize) {
  cuda::DeviceMemory memory;
  auto const buffer = Buffer::allocate(memory, std::size_t{1} << 46, 256);
  ASSERT_FALSE(buffer);
  EXPECT_EQ(buffer.code(), Errc::out_of_memory);
  EXPECT_NE(buffer.message().find("70368744177664 bytes"), std::string::npos) << buffer.message();
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);  // nothing is left for the next caller
}

TEST_F(CudaMemory, AlignmentBeyondCudaMallocsIsRefused) {
  cuda::DeviceMemory memory;
  EXPECT_EQ(Buffer::allocate(memory, 100, 4096).code(), Errc::invalid_argument);
  EXPECT_EQ(Buffer::allocate(memory, 100, 3).code(), Errc::invalid_argument);
}

}  // namespace
}  // namespace sida
