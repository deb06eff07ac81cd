#pragma once

// What runtime.cpp, which works streams off, and interface.cpp, CUDA's own functions, share. Internal.

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <vector>

#include "cuda_on_host/control.hpp"
#include "plumbing.hpp"

namespace cuda_on_host {

using Lock = std::unique_lock<std::mutex>;

/// A piece of work in a stream; also what an event that was recorded stands for.
struct Item {
  CUstream_st* stream = nullptr;  // lives until the item is done
  std::uint64_t place = 0;        // in the stream
  std::shared_ptr<Item> after;
  std::function<void()> work;
  bool may_be_held = false;
  bool is_early = false;  // a kernel that may overlap the one before it
  bool done = false;
  Token enqueued, ended;
};
using ItemRef = std::shared_ptr<Item>;

}  // namespace cuda_on_host

struct CUstream_st {
  std::deque<cuda_on_host::ItemRef> queue;
  cuda_on_host::ItemRef last;  // the newest, done or not
  unsigned long long id = 0;
  std::uint64_t places = 0;
  std::uint64_t wanted = 0;  // somebody waits for the item at this place
  bool closing = false;
  std::condition_variable work;
  std::mt19937_64 random;
};

struct CUevent_st {
  cuda_on_host::ItemRef recorded;
};

namespace cuda_on_host {

using Ranges = std::map<std::uintptr_t, std::uintptr_t>;  // begin and end; they don't overlap

struct Runtime {
  std::mutex mutex;  // over everything
  std::condition_variable progress;
  std::set<CUstream_st*> streams;  // with the null stream and those that were destroyed and have work yet
  Token gone;                      // what streams did that are in it no more
  std::set<CUstream_st*> handles;
  std::set<CUevent_st*> events;
  CUstream_st* null_stream = nullptr;
  Ranges device, pinned;
  std::size_t cublas_handles = 0;
  Modes modes;
  Calls calls;
  std::map<void const*, std::size_t> shared_allowed;  // to kernels that asked for more than others
  std::string failing;                                // the function whose call a test wants to fail
  int until_failure = 0;                              // calls of it
  int planned_error = 0;
  cudaError_t sticky_error = cudaSuccess;  // a kernel failed
  std::string failure;                     // how
};
Runtime& runtime();
template <class Body>
auto locked(Body const& body) {
  Unseen const unseen;
  Lock lock(runtime().mutex);
  return body(runtime(), lock);
}

inline thread_local cudaError_t last_error = cudaSuccess;
inline constexpr std::size_t kShared = 48 << 10;  // of a block, where its kernel has not asked for more

void want(Runtime& r, Item const& item);
void settle(Runtime& r, Lock& lock, ItemRef const& item);
/// Settles, and the caller comes after the item, which is not a kernel.
cudaError_t wait(Runtime& r, Lock& lock, ItemRef const& item);
CUstream_st* make_stream(Runtime& r);
/// The stream that a handle means, or null.
CUstream_st* find(Runtime& r, cudaStream_t handle);
struct Kind {
  bool may_be_held = false, is_early = false;
};
ItemRef push(CUstream_st& stream, std::function<void()> work, ItemRef after = nullptr, Kind kind = {});
/// Marks the end of what every stream has to do.
std::vector<ItemRef> mark_all(Runtime& r);
cudaError_t wait_for_all(Runtime& r, Lock& lock);
void fail_device(cudaError_t error, std::string failure);

/// Counts a call; returns the error that it shall fail with.
int counted(Runtime& r, char const* function);

enum class If { able, always };  // whether a call that shall fail does its work first

template <class Body>
cudaError_t call(char const* function, If when, Body const& body) {
  return locked([&](Runtime& r, Lock& lock) {
    auto error = static_cast<cudaError_t>(counted(r, function));
    if (error == cudaSuccess) error = r.sticky_error;
    if (error == cudaSuccess || when == If::always) {
      cudaError_t const own = body(r, lock);
      if (error == cudaSuccess) error = own;
      if (error == cudaSuccess) error = r.sticky_error;  // it may have waited for what failed
    }
    if (error != cudaSuccess) last_error = error;
    return error;
  });
}
/// The same for a call that works on a stream.
template <class Body>
cudaError_t call_on(cudaStream_t handle, char const* function, If when, Body const& body) {
  return call(function, when, [&](Runtime& r, Lock& lock) {
    CUstream_st* const stream = find(r, handle);
    return stream == nullptr ? cudaErrorInvalidResourceHandle : body(r, lock, *stream);
  });
}
#define CUDA_ON_HOST_CALL(when, expression) \
  call(__func__, If::when, [&]([[maybe_unused]] Runtime& r, [[maybe_unused]] Lock& lock) { return expression; })
#define CUDA_ON_HOST_STREAM_CALL(when, handle, expression) \
  call_on(handle, __func__, If::when,                      \
          [&]([[maybe_unused]] Runtime& r, [[maybe_unused]] Lock& lock, CUstream_st& it) { return expression; })

}  // namespace cuda_on_host
