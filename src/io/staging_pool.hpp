#pragma once

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>

#include "sida/core/memory.hpp"
#include "sida/core/result.hpp"

namespace sida::inline v0::io_detail {

/// At most `kChunks` aligned chunks through which unaligned O_DIRECT reads pass. Chunks are allocated when first
/// needed and kept. Thread-safe; must outlive its chunks.
class StagingPool {
 public:
  static constexpr std::size_t kChunks = 4;
  static constexpr std::size_t kChunkBytes = std::size_t{1} << 20;

  /// One chunk, given back at the end of its life. Move-only.
  class Chunk {
   public:
    Chunk(StagingPool* pool, std::size_t index) noexcept : pool_(pool), index_(index) {}
    Chunk(Chunk&& other) noexcept : pool_(other.pool_), index_(other.index_) { other.pool_ = nullptr; }
    Chunk& operator=(Chunk&&) = delete;
    ~Chunk() {
      if (pool_ != nullptr) pool_->give_back(index_);
    }
    /// kChunkBytes bytes, aligned to 4 KiB.
    std::span<std::byte> bytes() noexcept { return pool_->chunks_[index_].bytes(); }

   private:
    StagingPool* pool_;
    std::size_t index_;
  };

  /// Waits until a chunk is free. @return out_of_memory.
  Result<Chunk> take();
  std::uint64_t allocated_bytes() const noexcept;

 private:
  void give_back(std::size_t index) noexcept;

  HostMemory memory_;
  mutable std::mutex mutex_;
  std::condition_variable freed_;
  std::array<Buffer, kChunks> chunks_;
  std::array<bool, kChunks> taken_{};
  std::uint64_t allocated_bytes_ = 0;
};

}  // namespace sida::inline v0::io_detail
