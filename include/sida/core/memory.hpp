#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <utility>

#include "sida/core/api.hpp"
#include "sida/core/expert_id.hpp"
#include "sida/core/result.hpp"

namespace sida::inline v0 {

/// Where large blocks come from. An engine lends its own allocator by deriving from this; it is asked a
/// handful of times per store, never per expert. Implementations are thread-safe.
class SIDA_API MemoryResource {
 public:
  virtual ~MemoryResource() = default;
  /// @return `bytes` bytes aligned to `alignment` (a power of two), or `out_of_memory`.
  virtual Result<void*> allocate(std::size_t bytes, std::size_t alignment) = 0;
  /// Takes back what `allocate` gave for the same size and alignment.
  virtual void deallocate(void* data, std::size_t bytes, std::size_t alignment) noexcept = 0;
  virtual Tier space() const noexcept = 0;
};

/// Host memory from anonymous mappings, in huge pages where the system grants them. Pages cost nothing
/// until first touched. Thread-safe, stateless.
class SIDA_API HostMemory final : public MemoryResource {
 public:
  Result<void*> allocate(std::size_t bytes, std::size_t alignment) override;
  void deallocate(void* data, std::size_t bytes, std::size_t alignment) noexcept override;
  Tier space() const noexcept override { return Tier::host; }
};

/// Owns one block of a `MemoryResource`, which must outlive it. Move-only.
class SIDA_API Buffer {
 public:
  Buffer() noexcept = default;
  /// `purpose`, such as "slots of experts", begins the message of a failure.
  static Result<Buffer> allocate(MemoryResource& memory, std::size_t bytes, std::size_t alignment = 64,
                                 std::string_view purpose = {});
  /// Afterwards this has at least `bytes` bytes, and what was in it is lost if it had fewer. After a failure it has
  /// none. `memory` and `alignment` are the same in all calls.
  Status reserve(MemoryResource& memory, std::size_t bytes, std::size_t alignment, std::string_view purpose);
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).swap(*this);
    return *this;
  }
  ~Buffer();

  std::span<std::byte> bytes() & noexcept { return {static_cast<std::byte*>(data_), size_bytes_}; }
  std::span<std::byte const> bytes() const& noexcept { return {static_cast<std::byte const*>(data_), size_bytes_}; }
  std::span<std::byte> bytes() && = delete;  // would dangle
  std::size_t size_bytes() const noexcept { return size_bytes_; }
  void swap(Buffer& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(data_, other.data_);
    std::swap(size_bytes_, other.size_bytes_);
    std::swap(alignment_, other.alignment_);
  }

 private:
  MemoryResource* memory_ = nullptr;
  void* data_ = nullptr;
  std::size_t size_bytes_ = 0;
  std::size_t alignment_ = 0;
};

}  // namespace sida::inline v0
