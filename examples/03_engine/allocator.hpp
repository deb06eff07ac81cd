#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <span>

namespace engine {

/// The engine's allocator: large blocks, accounted for, up to a limit. Thread-safe.
class Allocator {
 public:
  explicit Allocator(std::size_t limit_bytes) noexcept : limit_bytes_(limit_bytes) {}
  Allocator(Allocator const&) = delete;
  Allocator& operator=(Allocator const&) = delete;

  /// `alignment`: a power of two. @return nullptr beyond the limit, or when the system has no memory.
  void* allocate(std::size_t bytes, std::size_t alignment) noexcept {
    std::size_t const live = live_bytes_.fetch_add(bytes) + bytes;
    // aligned_alloc wants whole multiples.
    void* const data =
        live > limit_bytes_ ? nullptr : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (data == nullptr) {
      live_bytes_.fetch_sub(bytes);
      return nullptr;
    }
    std::size_t peak = peak_bytes_.load();
    while (peak < live && !peak_bytes_.compare_exchange_weak(peak, live)) {
    }
    return data;
  }
  void release(void* data, std::size_t bytes) noexcept {
    std::free(data);
    live_bytes_.fetch_sub(bytes);
  }
  /// The most bytes that were out at once.
  std::size_t peak_bytes() const noexcept { return peak_bytes_.load(); }

 private:
  std::size_t limit_bytes_;
  std::atomic<std::size_t> live_bytes_{0};
  std::atomic<std::size_t> peak_bytes_{0};
};

/// A block of an allocator. @throws std::bad_alloc.
class Block {
 public:
  Block(Allocator& allocator, std::size_t bytes, std::size_t alignment)
      : allocator_(allocator), bytes_(bytes), data_(allocator.allocate(bytes, alignment)) {
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ~Block() { allocator_.release(data_, bytes_); }
  Block(Block const&) = delete;
  Block& operator=(Block const&) = delete;
  std::span<std::byte> bytes() const noexcept { return {static_cast<std::byte*>(data_), bytes_}; }

 private:
  Allocator& allocator_;
  std::size_t bytes_;
  void* data_;
};

}  // namespace engine
