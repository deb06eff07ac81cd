#pragma once

#include <cstddef>

namespace sida::inline v0 {

/// Non-owning view of an ordered queue of work that the caller lends: a GPU stream, or the calling
/// thread itself. Made on purpose: neither a number nor nullptr converts to it.
class StreamRef {
 public:
  StreamRef(int) = delete;
  StreamRef(std::nullptr_t) = delete;

  /// Work runs on the calling thread, before the call returns.
  static constexpr StreamRef host() noexcept { return StreamRef(nullptr, true); }
  /// Wraps a native stream handle (a cudaStream_t, say). `nullptr` is that runtime's default stream.
  static constexpr StreamRef native(void* handle) noexcept { return StreamRef(handle, false); }

  constexpr bool is_host() const noexcept { return is_host_; }
  constexpr void* native_handle() const noexcept { return handle_; }
  friend constexpr bool operator==(StreamRef, StreamRef) noexcept = default;

 private:
  constexpr StreamRef(void* handle, bool is_host) noexcept : handle_(handle), is_host_(is_host) {}
  void* handle_;
  bool is_host_;
};

}  // namespace sida::inline v0
