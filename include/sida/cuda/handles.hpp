#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <memory>
#include <type_traits>
#include <utility>

#include "sida/core/result.hpp"
#include "sida/core/stream.hpp"
#include "sida/cuda/error.hpp"
#include "sida/detail/try.hpp"

/// Owners of CUDA's handles, for those who have none to lend. Move-only.
namespace sida::inline v0::cuda {

/// An engine's own stream, as the store and the layer take it. `nullptr` is CUDA's default stream; cudaStreamPerThread
/// is refused by the store, since the thread that releases a wave may be another than the one that asked for it.
inline StreamRef stream_ref(cudaStream_t stream) noexcept { return StreamRef::native(stream); }
/// Back again. Precondition: not StreamRef::host().
inline cudaStream_t native(StreamRef stream) noexcept { return static_cast<cudaStream_t>(stream.native_handle()); }

namespace detail {
struct Destroy {
  void operator()(cudaStream_t stream) const noexcept { static_cast<void>(cudaStreamDestroy(stream)); }
  void operator()(cudaEvent_t event) const noexcept { static_cast<void>(cudaEventDestroy(event)); }
  void operator()(cublasHandle_t handle) const noexcept { static_cast<void>(cublasDestroy(handle)); }
};
template <class Handle>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy>;
}  // namespace detail

/// A stream that does not wait for the default stream.
class Stream {
 public:
  static Result<Stream> create() {
    cudaStream_t handle = nullptr;
    SIDA_TRY(check(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"));
    return Stream(handle);
  }
  cudaStream_t get() const noexcept { return handle_.get(); }
  StreamRef ref() const noexcept { return stream_ref(get()); }
  Status synchronize() const { return check(cudaStreamSynchronize(get()), "cudaStreamSynchronize"); }

 private:
  explicit Stream(cudaStream_t handle) noexcept : handle_(handle) {}
  detail::Owned<cudaStream_t> handle_;
};

/// An event that orders, and does not time.
class Event {
 public:
  static Result<Event> create() {
    cudaEvent_t handle = nullptr;
    SIDA_TRY(check(cudaEventCreateWithFlags(&handle, cudaEventDisableTiming), "cudaEventCreateWithFlags"));
    return Event(handle);
  }
  cudaEvent_t get() const noexcept { return handle_.get(); }
  Status record(cudaStream_t stream) const { return check(cudaEventRecord(get(), stream), "cudaEventRecord"); }
  Status synchronize() const { return check(cudaEventSynchronize(get()), "cudaEventSynchronize"); }
  /// Work enqueued on `stream` from now on runs after what was recorded.
  Status hold_back(cudaStream_t stream) const {
    return check(cudaStreamWaitEvent(stream, get(), 0), "cudaStreamWaitEvent");
  }

 private:
  explicit Event(cudaEvent_t handle) noexcept : handle_(handle) {}
  detail::Owned<cudaEvent_t> handle_;
};

class BlasHandle {
 public:
  static Result<BlasHandle> create() {
    cublasHandle_t handle = nullptr;
    SIDA_TRY(check(cublasCreate(&handle), "cublasCreate"));
    return BlasHandle(handle);
  }
  cublasHandle_t get() const noexcept { return handle_.get(); }

 private:
  explicit BlasHandle(cublasHandle_t handle) noexcept : handle_(handle) {}
  detail::Owned<cublasHandle_t> handle_;
};

}  // namespace sida::inline v0::cuda
