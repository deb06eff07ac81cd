#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime.h>
#include <deque>
#include <vector>

#include "sida/core/result.hpp"
#include "sida/cuda/handles.hpp"

namespace sida::inline v0::cuda {

/// Events of those who read slots, one for each wave that was released, shared by its slots, and used again when no
/// slot waits for it any more. Not thread-safe.
class ReaderEvents {
 public:
  /// What one slot's refill waits for.
  using List = std::vector<std::uint32_t>;

  /// The work on `stream` up to now. Where no event can be had, or recorded, the calling thread waits for the stream:
  /// then there is nothing to wait for later.
  struct Mark {
    static constexpr std::uint32_t kNone = 0xFFFFFFFFU;
    std::uint32_t event = kNone;
  };
  Mark mark(cudaStream_t stream) noexcept;
  /// Creates events for so many marks that slots wait for at one time; more are created when they are needed.
  Status reserve(std::size_t marks);

  /// Adds a mark that was just made. An earlier one of the same stream has nothing more to say.
  void add(List& readers, Mark mark) noexcept;
  /// Work enqueued on `stream` from now on runs after the slot's readers.
  Status hold_back(List const& readers, cudaStream_t stream) const;
  void forget(List& readers) noexcept;
  /// Waits for all readers.
  void wait_for_all() noexcept;

 private:
  Status create();
  struct Reader {
    Event event;
    unsigned long long stream;  // CUDA's number of it: unlike a handle, never used again
    std::uint32_t slots;        // that wait for it
  };
  void drop(std::uint32_t event) noexcept;

  std::vector<Reader> readers_;
  std::vector<std::uint32_t> free_;  // has room for all
};

}  // namespace sida::inline v0::cuda
