#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sida::inline v0 {

/// Carves typed blocks, each aligned to 64 bytes, from memory that the caller lends. Made without memory it
/// only counts, so that the code which sizes a workspace is the code which uses it.
class Workspace {
 public:
  static constexpr std::size_t kAlignment = 64;

  Workspace() noexcept = default;  ///< counts only; `take` returns nullptr
  /// `memory` must start at a multiple of 64 bytes.
  explicit Workspace(std::span<std::byte> memory) noexcept : memory_(memory), counting_(false) {}

  /// `count` elements of T, or nullptr when counting or when the memory is used up (see `fits`).
  template <class T>
  T* take(std::int64_t count) noexcept {
    std::size_t const bytes = (static_cast<std::size_t>(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    std::size_t const offset = used_bytes_;
    used_bytes_ += bytes;
    if (counting_ || used_bytes_ > memory_.size()) return nullptr;
    return reinterpret_cast<T*>(memory_.data() + offset);
  }

  std::size_t used_bytes() const noexcept { return used_bytes_; }
  bool fits() const noexcept { return !counting_ && used_bytes_ <= memory_.size(); }

 private:
  std::span<std::byte> memory_;
  std::size_t used_bytes_ = 0;
  bool counting_ = true;
};

}  // namespace sida::inline v0
