#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "sida/cuda/handles.hpp"
#include "sida/cuda/memory.hpp"
#include "tests/cuda/device_fixture.hpp"

namespace sida::test {

/// Device memory as an engine's pool lends it: what is given back has its next owner at once, who writes there on a
/// stream of its own. CUDA's own cudaFree waits for the device, and so hides who doesn't.
class PoolMemory final : public MemoryResource {
 public:
  ~PoolMemory() override {
    for (auto const& block : given_back_) memory_.deallocate(block.data(), block.size(), 1);
  }
  Result<void*> allocate(std::size_t bytes, std::size_t alignment) override {
    return memory_.allocate(bytes, alignment);
  }
  void deallocate(void* data, std::size_t bytes, std::size_t) noexcept override {
    given_back_.emplace_back(static_cast<std::byte*>(data), bytes);
    static_cast<void>(cudaMemsetAsync(data, kWritten, bytes, next_owner_.get()));
  }
  Tier space() const noexcept override { return Tier::device; }

  /// Whether, in the end, what the next owners wrote is there.
  bool was_left_alone() const {
    must(cudaDeviceSynchronize());
    return std::ranges::all_of(given_back_, [](std::span<std::byte> block) {
      std::vector<std::byte> bytes(block.size());
      must(cudaMemcpy(bytes.data(), block.data(), bytes.size(), cudaMemcpyDeviceToHost));
      return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{kWritten}; });
    });
  }

 private:
  static constexpr int kWritten = 0x3F;
  cuda::DeviceMemory memory_;
  cuda::Stream next_owner_ = take(cuda::Stream::create());
  std::vector<std::span<std::byte>> given_back_;
};

}  // namespace sida::test
