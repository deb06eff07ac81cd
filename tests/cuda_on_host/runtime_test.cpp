#include <array>
#include <chrono>
#include <cstring>
#include <cuda_runtime.h>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "cuda_on_host/control.hpp"
#include "pinned.hpp"
#include <gtest/gtest.h>

namespace {

using cuda_on_host::live;

class Runtime : public testing::Test {
 protected:
  Runtime() {
    cuda_on_host::reset();
    before_ = live();
  }
  ~Runtime() override {
    cuda_on_host::reset();
    EXPECT_EQ(live(), before_);
  }

 private:
  cuda_on_host::Live before_;
};

struct Stream {
  Stream() { EXPECT_EQ(cudaStreamCreateWithFlags(&it, cudaStreamNonBlocking), cudaSuccess); }
  ~Stream() { EXPECT_EQ(cudaStreamDestroy(it), cudaSuccess); }
  operator cudaStream_t() const { return it; }
  cudaStream_t it = nullptr;
};
struct Event {
  Event() { EXPECT_EQ(cudaEventCreateWithFlags(&it, cudaEventDisableTiming), cudaSuccess); }
  ~Event() { EXPECT_EQ(cudaEventDestroy(it), cudaSuccess); }
  operator cudaEvent_t() const { return it; }
  cudaEvent_t it = nullptr;
};
template <class T, bool on_device>
struct Array {
  explicit Array(std::size_t count_) : count(count_), bytes(count * sizeof(T)) {
    if (on_device) {
      EXPECT_EQ(cudaMalloc(&it, bytes), cudaSuccess);
    } else {
      it = static_cast<T*>(allocate_pinned(bytes));
    }
  }
  ~Array() { EXPECT_EQ(on_device ? cudaFree(it) : free_pinned(it), cudaSuccess); }
  std::size_t count, bytes;
  T* it = nullptr;
};
using Pinned = Array<int, false>;
using Device = Array<int, true>;

// For tests that look at what a race does.
#if defined(__SANITIZE_THREAD__)
#define SKIP_UNDER_TSAN() GTEST_SKIP()
#else
#define SKIP_UNDER_TSAN() static_cast<void>(0)
#endif

TEST_F(Runtime, CopiesThereAndBack) {
  constexpr std::size_t kCount = 1000;
  Pinned from(kCount), to(kCount);
  Device first(kCount), second(kCount);
  Stream stream;
  for (std::size_t i = 0; i < kCount; ++i) from.it[i] = static_cast<int>(i);
  EXPECT_EQ(cudaMemcpyAsync(first.it, from.it, from.bytes, cudaMemcpyHostToDevice, stream), cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(second.it, first.it, from.bytes, cudaMemcpyDeviceToDevice, stream), cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(to.it, second.it, from.bytes, cudaMemcpyDeviceToHost, stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(std::memcmp(to.it, from.it, from.bytes), 0);
}

TEST_F(Runtime, RefusesCopiesThatGoAstray) {
  Pinned host(10);
  Device device(10);
  EXPECT_EQ(cudaMemcpy(device.it, host.it, 40, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(host.it, host.it, 40, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(device.it, host.it, 41, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(nullptr, host.it, 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemset(host.it, 0, 40), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpyAsync(device.it, host.it, 40, cudaMemcpyHostToDevice, reinterpret_cast<cudaStream_t>(&host)),
            cudaErrorInvalidResourceHandle);
}

TEST_F(Runtime, GivesDeviceMemoryThatHoldsNothing) {
  Device device(3);
  std::array<int, 3> host{};
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(device.it) % 256, 0);
  EXPECT_EQ(cudaMemcpy(host.data(), device.it, 12, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(host, (std::array{-1, -1, -1}));
  EXPECT_EQ(cudaMemset(device.it, 0, 12), cudaSuccess);
  EXPECT_EQ(cudaMemcpy(host.data(), device.it, 12, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(host, (std::array{0, 0, 0}));
}

TEST_F(Runtime, ReadsPageableMemoryAtTheCallAndPinnedMemoryLater) {
  SKIP_UNDER_TSAN();
  cuda_on_host::set({.hold_copies = true});
  Stream stream;
  Device device(2);
  auto const source = std::make_unique<int>(1);
  ASSERT_EQ(cudaMemcpyAsync(device.it, source.get(), 4, cudaMemcpyHostToDevice, stream), cudaSuccess);
  *source = 2;
  Pinned pinned(3);
  pinned.it[0] = 3;
  ASSERT_EQ(cudaMemcpyAsync(device.it + 1, pinned.it, 4, cudaMemcpyHostToDevice, stream), cudaSuccess);
  pinned.it[0] = 4;
  ASSERT_EQ(cudaMemcpyAsync(pinned.it + 1, device.it, 8, cudaMemcpyDeviceToHost, stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(pinned.it[1], 1);
  EXPECT_EQ(pinned.it[2], 4);
}

TEST_F(Runtime, HoldsCopiesUntilSomebodyAsks) {
  cuda_on_host::set({.hold_copies = true});
  Stream stream, other;
  Event event;
  Pinned host(1);
  Device device(1);
  host.it[0] = 5;
  cudaError_t (*const ways[])(cudaStream_t, cudaStream_t, cudaEvent_t) = {
      [](auto, auto, auto it) { return cudaEventSynchronize(it); },
      [](auto it, auto, auto) { return cudaStreamSynchronize(it); },
      [](auto, auto, auto) { return cudaDeviceSynchronize(); },
      [](auto, auto waiting, auto it) {
        cudaError_t const error = cudaStreamWaitEvent(waiting, it, 0);
        return error == cudaSuccess ? cudaStreamSynchronize(waiting) : error;
      },
  };
  int* const seen = host.it;
  for (auto const& ask : ways) {
    ++*seen;
    ASSERT_EQ(cudaMemset(device.it, 0, 4), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
    ASSERT_EQ(cudaMemcpyAsync(device.it, host.it, 4, cudaMemcpyHostToDevice, stream), cudaSuccess);
    ASSERT_EQ(cudaEventRecord(event, stream), cudaSuccess);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
#if !defined(__SANITIZE_THREAD__)
    EXPECT_EQ(*device.it, 0);
#endif
    EXPECT_EQ(ask(stream, other, event), cudaSuccess);
    EXPECT_EQ(*device.it, *seen);
  }
}

TEST_F(Runtime, PoisonsDestinationsAsSoonAsLegal) {
  SKIP_UNDER_TSAN();
  cuda_on_host::set({.poison_destinations = true, .hold_copies = true});
  Stream stream;
  Pinned host(1), result(1);
  Device device(1);
  host.it[0] = 5;
  result.it[0] = 6;
  ASSERT_EQ(cudaMemset(device.it, 0, 4), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(result.it, device.it, 4, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(result.it[0], 0);
  ASSERT_EQ(cudaMemcpyAsync(device.it, host.it, 4, cudaMemcpyHostToDevice, stream), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(result.it, device.it, 4, cudaMemcpyDeviceToHost, nullptr), cudaSuccess);  // a mistake
  ASSERT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
  EXPECT_EQ(result.it[0], -1);
  ASSERT_EQ(cudaMemcpyAsync(result.it, device.it, 4, cudaMemcpyDeviceToHost, stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(result.it[0], 5);
}

TEST_F(Runtime, WaitsForStreamsThatWereDestroyedToo) {
  Pinned host(1000);
  Device device(1000);
  ASSERT_EQ(cudaMemset(device.it, 1, device.bytes), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (int i = 0; i < 20; ++i) {
    {
      Stream stream;
      ASSERT_EQ(cudaMemcpyAsync(host.it, device.it, host.bytes, cudaMemcpyDeviceToHost, stream), cudaSuccess);
    }
    if (i % 2 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));  // it may have ended, or not
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    ASSERT_EQ(host.it[999], 0x01010101);
    host.it[999] = 0;
  }
}

TEST_F(Runtime, RegistersWholePagesOnce) {
  constexpr std::size_t kPage = 4096;
  alignas(kPage) static std::array<char, 4 * kPage> memory;
  char* const at = memory.data();
  EXPECT_EQ(cudaHostRegister(at, 2 * kPage, cudaHostRegisterPortable), cudaSuccess);
  EXPECT_EQ(live().pinned_ranges, 1);
  EXPECT_EQ(cudaHostRegister(at + kPage, kPage, cudaHostRegisterPortable), cudaErrorHostMemoryAlreadyRegistered);
  EXPECT_EQ(cudaHostRegister(at + 3 * kPage, 0, cudaHostRegisterPortable), cudaErrorInvalidValue);
  EXPECT_EQ(cudaHostRegister(at + 3 * kPage, 10, cudaHostRegisterPortable), cudaErrorInvalidValue);
  EXPECT_EQ(cudaHostUnregister(at + kPage), cudaErrorHostMemoryNotRegistered);
  Device device(4 * kPage);
  EXPECT_EQ(cudaMemcpy(device.it, at + kPage, 2 * kPage, cudaMemcpyHostToDevice), cudaErrorInvalidValue);  // half
  EXPECT_EQ(cudaHostUnregister(at), cudaSuccess);
  EXPECT_EQ(cudaHostUnregister(at), cudaErrorHostMemoryNotRegistered);
}

TEST_F(Runtime, KeepsTheLastError) {
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_EQ(cudaSetDevice(3), cudaErrorInvalidDevice);
  EXPECT_EQ(cudaSetDevice(0), cudaSuccess);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidDevice);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_STREQ(cudaGetErrorName(cudaErrorUnknown), "cudaErrorUnknown");
  EXPECT_STREQ(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory");
}

TEST_F(Runtime, RunsOutOfMemory) {
  void* memory = nullptr;
  EXPECT_EQ(cudaMalloc(&memory, (std::size_t{1} << 30) + 1), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaFree(&memory), cudaErrorInvalidValue);
}

TEST_F(Runtime, FailsTheCallThatTheTestNames) {
  cuda_on_host::fail("cudaMalloc", 2, cudaErrorMemoryAllocation);
  int *first = nullptr, *second = nullptr;
  EXPECT_EQ(cudaMalloc(&first, 4), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&second, 4), cudaErrorMemoryAllocation);
  EXPECT_EQ(cuda_on_host::calls().at("cudaMalloc"), 2);
  cuda_on_host::fail("cudaFree", 1, cudaErrorUnknown);
  EXPECT_EQ(cudaFree(first), cudaErrorUnknown);  // freed all the same
  EXPECT_EQ(cuda_on_host::calls().size(), 2);
  EXPECT_EQ(cudaMalloc(&second, 4), cudaSuccess);
  EXPECT_EQ(cudaFree(second), cudaSuccess);
}

// Several hosts, each with a stream that fills slots and one that reads them; the right waits must suffice however long
// things take, and be seen to.
TEST_F(Runtime, NeedsNoMoreThanTheRightWaits) {
  for (int mode = 0; mode < 4; ++mode) {
    if (mode == 1) cuda_on_host::set({.hold_copies = true});
    if (mode == 2) cuda_on_host::set({.poison_destinations = true, .hold_copies = true});
    if (mode == 3) cuda_on_host::set({.shuffle = 1});
    auto const host = [] {
      constexpr std::size_t kSlots = 3, kRounds = 60, kSize = 64;
      Stream fill, read;
      Event filled[kSlots], used[kSlots];
      Pinned source(kSlots * kSize), result(kRounds * kSize);
      Device slots(kSlots * kSize), output(kSize);
      for (std::size_t round = 0; round < kRounds; ++round) {
        std::size_t const slot = round % kSlots, at = slot * kSize;
        EXPECT_EQ(cudaEventSynchronize(filled[slot]), cudaSuccess);  // before the source is written
        for (std::size_t i = 0; i < kSize; ++i) source.it[at + i] = static_cast<int>(round);
        EXPECT_EQ(cudaStreamWaitEvent(fill, used[slot], 0), cudaSuccess);
        EXPECT_EQ(cudaMemcpyAsync(slots.it + at, source.it + at, kSize * 4, cudaMemcpyHostToDevice, fill), cudaSuccess);
        EXPECT_EQ(cudaEventRecord(filled[slot], fill), cudaSuccess);
        EXPECT_EQ(cudaStreamWaitEvent(read, filled[slot], 0), cudaSuccess);
        EXPECT_EQ(cudaMemcpyAsync(output.it, slots.it + at, kSize * 4, cudaMemcpyDeviceToDevice, read), cudaSuccess);
        EXPECT_EQ(cudaEventRecord(used[slot], read), cudaSuccess);
        EXPECT_EQ(cudaMemcpyAsync(result.it + round * kSize, output.it, kSize * 4, cudaMemcpyDeviceToHost, read),
                  cudaSuccess);
      }
      EXPECT_EQ(cudaStreamSynchronize(read), cudaSuccess);
      for (std::size_t i = 0; i < kRounds * kSize; ++i) ASSERT_EQ(result.it[i], static_cast<int>(i / kSize));
    };
    std::thread other(host);
    host();
    other.join();
    cuda_on_host::reset();
  }
}

}  // namespace
