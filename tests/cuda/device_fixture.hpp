#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "sida/core/matrix.hpp"
#include "sida/core/memory.hpp"
#include "sida/cuda/error.hpp"
#include "sida/cuda/handles.hpp"
#include "sida/cuda/memory.hpp"

namespace sida::test {

/// Whether a host's processor plays the GPU: some thousand times slower, so what is merely large may be smaller.
#if defined(SIDA_CUDA_ON_HOST)
inline constexpr bool kIsOnHost = true;
#else
inline constexpr bool kIsOnHost = false;
#endif
/// Sanitizers make all slow, and the stand-in's threads most of all: tests then take fewer cases.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr bool kIsSanitized = true;
#else
inline constexpr bool kIsSanitized = false;
#endif

/// The value, or an exception with the message, which fails the test.
template <class T>
T take(Result<T> result) {
  if (!result) throw std::runtime_error(result.message());
  return *std::move(result);
}
inline void must(Status const& status) {
  if (!status) throw std::runtime_error(status.message());
}
inline void must(cudaError_t error) { must(cuda::check(error, "a test's call")); }

/// What an engine lends.
struct Lent {
  HostMemory host_memory;
  cuda::PinnedMemory pinned;
  cuda::DeviceMemory device;
  cuda::Stream stream = take(cuda::Stream::create());
  cuda::BlasHandle blas = take(cuda::BlasHandle::create());
};

/// Skips where there is no GPU or no driver for it, which CUDA tells by two errors; fails on any other.
class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Status const status = cuda::require_device();
    if (status) return;
    bool const is_absent = status.message().find("cudaErrorInsufficientDriver") != std::string::npos ||
                           status.message().find("cudaErrorNoDevice") != std::string::npos;
    if (is_absent) GTEST_SKIP() << status.message();
    FAIL() << status.message();
  }
};

/// Device memory with bytes that are NaN in every element type until written.
class DeviceBytes {
 public:
  explicit DeviceBytes(std::size_t bytes)
      : buffer_(take(Buffer::allocate(memory(), std::max<std::size_t>(bytes, 1), 256))) {
    must(cudaMemset(buffer_.bytes().data(), 0xFF, buffer_.size_bytes()));
    must(cudaStreamSynchronize(nullptr));  // a fill is not waited for, and non-blocking streams do not wait for it
  }
  std::span<std::byte> bytes() { return buffer_.bytes(); }

 private:
  static MemoryResource& memory() {
    static cuda::DeviceMemory memory;
    return memory;
  }
  Buffer buffer_;
};

/// A matrix in device memory, from and to host memory.
class DeviceFloats {
 public:
  DeviceFloats(std::int64_t rows, std::int64_t cols)
      : rows_(rows), cols_(cols), memory_(static_cast<std::size_t>(rows * cols) * sizeof(float)) {}
  DeviceFloats(std::vector<float> const& values, std::int64_t cols)
      : DeviceFloats(static_cast<std::int64_t>(values.size()) / cols, cols) {
    must(cudaMemcpy(data(), values.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice));
  }
  float* data() { return reinterpret_cast<float*>(memory_.bytes().data()); }
  Matrix<float, Tier::device> view() { return {data(), rows_, cols_}; }
  std::vector<float> values() {
    std::vector<float> all(static_cast<std::size_t>(rows_ * cols_));
    must(cudaDeviceSynchronize());
    must(cudaMemcpy(all.data(), data(), all.size() * sizeof(float), cudaMemcpyDeviceToHost));
    return all;
  }

 private:
  std::int64_t rows_;
  std::int64_t cols_;
  DeviceBytes memory_;
};

}  // namespace sida::test
