#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime.h>
#include <functional>
#include <initializer_list>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/tsan_interface.h>
#include <string>

// The sanitizers' own interface, there only where one is linked.
#pragma weak __tsan_acquire
#pragma weak __tsan_release
#pragma weak __tsan_get_current_fiber
#pragma weak __tsan_create_fiber
#pragma weak __tsan_destroy_fiber
#pragma weak __tsan_switch_to_fiber
#pragma weak __sanitizer_start_switch_fiber
#pragma weak __sanitizer_finish_switch_fiber
#pragma weak __asan_unpoison_memory_region
extern "C" {
[[gnu::weak]] void AnnotateIgnoreSyncBegin(char const* file, int line);
[[gnu::weak]] void AnnotateIgnoreSyncEnd(char const* file, int line);
[[gnu::weak]] void AnnotateIgnoreReadsBegin(char const* file, int line);
[[gnu::weak]] void AnnotateIgnoreReadsEnd(char const* file, int line);
[[gnu::weak]] void AnnotateIgnoreWritesBegin(char const* file, int line);
[[gnu::weak]] void AnnotateIgnoreWritesEnd(char const* file, int line);
}

namespace cuda_on_host {

// ThreadSanitizer must learn of the order that CUDA gives, and of no other. So the sources that include this header are
// compiled without it, what they do with mutexes and the heap stays `Unseen`, and each edge that CUDA gives is told
// through a `Token`.

inline bool has_tsan() { return __tsan_acquire != nullptr; }
inline bool has_asan() { return __asan_unpoison_memory_region != nullptr; }

inline void begin_unseen() {
  if (!has_tsan()) return;
  AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}
inline void end_unseen() {
  if (!has_tsan()) return;
  AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
}
/// In its scope nothing orders or races in ThreadSanitizer's eyes. Not nested.
struct Unseen {
  Unseen() { begin_unseen(); }
  ~Unseen() { end_unseen(); }
};
/// Interrupts an `Unseen` scope.
struct Seen {
  Seen() { end_unseen(); }
  ~Seen() { begin_unseen(); }
};

/// What happened before a `release` happened before what follows an `acquire`. Only outside `Unseen`.
class Token {
 public:
  void release() {
    if (has_tsan()) __tsan_release(&place_);
  }
  void acquire() {
    if (has_tsan()) __tsan_acquire(&place_);
  }

 private:
  alignas(8) std::uint64_t place_ = 0;
};

struct LaunchShape {
  dim3 grid, block;
  std::size_t shared_bytes;
  bool is_early;  // may start before the kernel before it has ended
};
/// Runs all blocks of a launch on the calling thread; under ThreadSanitizer on two others, so that blocks are seen to
/// be unordered. Returns what went wrong, or an empty string.
std::string run_blocks(LaunchShape const& shape, std::function<void()> const& body);
/// What the calling thread does next comes after the kernels that it ran. Before an early kernel it doesn't call that.
void come_after_kernels();
/// The calling thread runs no more blocks.
void end_blocks();

/// For cublas_lt.cpp. `start` counts a call, and returns the failure that a test asked for. `enqueue` queues work that
/// may read or write device memory at the addresses given, which must be device memory.
int start(char const* function);
cudaError_t enqueue(cudaStream_t stream, std::function<void()> work, std::initializer_list<void const*> addresses);
void count_cublas_handles(int change);

}  // namespace cuda_on_host
