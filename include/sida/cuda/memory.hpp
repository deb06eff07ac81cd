#pragma once

#include <cstddef>

#include "sida/core/api.hpp"
#include "sida/core/memory.hpp"
#include "sida/core/result.hpp"

namespace sida::inline v0::cuda {

/// Memory of the current device, from cudaMalloc; an engine that has a pool of its own derives from MemoryResource
/// instead. Alignment: up to 256 bytes. Thread-safe, stateless.
class SIDA_API DeviceMemory final : public MemoryResource {
 public:
  Result<void*> allocate(std::size_t bytes, std::size_t alignment) override;
  void deallocate(void* data, std::size_t bytes, std::size_t alignment) noexcept override;
  Tier space() const noexcept override { return Tier::device; }
};

/// Host memory that a GPU copies from and to without staging: anonymous mappings in huge pages, touched on several
/// threads, then registered as a whole, for all devices. Reads with O_DIRECT land in it. Thread-safe, stateless.
class SIDA_API PinnedMemory final : public MemoryResource {
 public:
  Result<void*> allocate(std::size_t bytes, std::size_t alignment) override;
  void deallocate(void* data, std::size_t bytes, std::size_t alignment) noexcept override;
  Tier space() const noexcept override { return Tier::host; }
};

}  // namespace sida::inline v0::cuda
