// Memory, and the functions that CUDA gives.

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "runtime.hpp"

namespace cuda_on_host {
namespace {

constexpr int kMostShared = 227 << 10;
constexpr std::size_t kMemory = std::size_t{1} << 30;  // of one allocation
std::uintptr_t address(void const* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

// ---- Memory

enum class Where { device, pinned, pageable, wrong };

Ranges::value_type const* overlap(Ranges const& ranges, std::uintptr_t begin, std::uintptr_t end) {
  auto next = ranges.lower_bound(end);
  return next != ranges.begin() && (--next)->second > begin ? &*next : nullptr;
}
/// Where all bytes of a range are.
Where where(Runtime const& r, void const* pointer, std::size_t size) {
  std::uintptr_t const begin = address(pointer), end = begin + size;
  auto const* const device = overlap(r.device, begin, end);
  auto const* const found = device != nullptr ? device : overlap(r.pinned, begin, end);
  if (found == nullptr) return pointer != nullptr ? Where::pageable : Where::wrong;
  if (begin < found->first || end > found->second) return Where::wrong;
  return device != nullptr ? Where::device : Where::pinned;
}

cudaError_t copy(Runtime& r, CUstream_st& stream, void* to, void const* from, std::size_t count, cudaMemcpyKind kind) {
  if (count == 0) return cudaSuccess;
  Where const target = where(r, to, count), source = where(r, from, count);
  bool const to_device = kind != cudaMemcpyDeviceToHost, from_device = kind != cudaMemcpyHostToDevice;
  bool const as_said = to_device == (target == Where::device) && from_device == (source == Where::device);
  if (target == Where::wrong || source == Where::wrong || !as_said) return cudaErrorInvalidValue;
  std::shared_ptr<char[]> staged;
  if (source == Where::pageable) {
    staged = std::make_shared<char[]>(count);
    Seen const seen;
    std::memcpy(staged.get(), from, count);
  }
  if (r.modes.poison_destinations) {
    bool const idle = !stream.last || stream.last->done;
    idle ? void(std::memset(to, 0xff, count)) : void(push(stream, [=] { std::memset(to, 0xff, count); }));
  }
  auto const work = [=] { std::memcpy(to, staged ? staged.get() : from, count); };
  push(stream, work, nullptr, {.may_be_held = true});
  return cudaSuccess;
}

cudaError_t fill(Runtime& r, CUstream_st& stream, void* to, int value, std::size_t count) {
  if (where(r, to, count) != Where::device) return cudaErrorInvalidValue;
  push(stream, [=] { std::memset(to, value, count); });
  return cudaSuccess;
}

}  // namespace

cudaError_t enqueue(cudaStream_t handle, std::function<void()> work, std::initializer_list<void const*> addresses) {
  return locked([&](Runtime& r, Lock&) {
    CUstream_st* const stream = find(r, handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    bool const legal = std::ranges::all_of(addresses, [&](void const* at) { return where(r, at, 1) == Where::device; });
    if (!legal) work = [] { fail_device(cudaErrorIllegalAddress, "cublasLtMatmul: a matrix is not in device memory"); };
    push(*stream, std::move(work));
    return cudaSuccess;
  });
}

}  // namespace cuda_on_host

// ---- The interface

using namespace cuda_on_host;

namespace {
#define CUDA_ON_HOST_TEXT(name, number, text) {name, #name, text},
constexpr struct {
  cudaError_t error;
  char const *name, *text;
} kErrors[] = {CUDA_ON_HOST_ERRORS(CUDA_ON_HOST_TEXT)};
auto const& described(cudaError_t error) {
  return *std::ranges::find_if(kErrors, [error](auto const& one) { return one.error == error; });
}
}  // namespace
char const* cudaGetErrorName(cudaError_t error) { return described(error).name; }
char const* cudaGetErrorString(cudaError_t error) { return described(error).text; }
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  return CUDA_ON_HOST_CALL(able, (*count = 1, cudaSuccess));
}
cudaError_t cudaGetDevice(int* device) { return CUDA_ON_HOST_CALL(able, (*device = 0, cudaSuccess)); }
cudaError_t cudaSetDevice(int device) {
  return CUDA_ON_HOST_CALL(able, device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device) {
  return CUDA_ON_HOST_CALL(able, device == 0 ? (*value = 9, cudaSuccess) : cudaErrorInvalidDevice);
}
cudaError_t cudaDeviceSynchronize() { return CUDA_ON_HOST_CALL(always, wait_for_all(r, lock)); }
cudaError_t cudaFuncSetAttribute(void const* kernel, cudaFuncAttribute, int value) {
  return call(__func__, If::able, [&](Runtime& r, Lock&) {
    if (value < 0 || value > kMostShared) return cudaErrorInvalidValue;
    r.shared_allowed[kernel] = std::max(kShared, static_cast<std::size_t>(value));
    return cudaSuccess;
  });
}

cudaError_t cudaMalloc(void** pointer, size_t size) {
  return call(__func__, If::able, [&](Runtime& r, Lock&) {
    *pointer = nullptr;
    if (size == 0) return cudaSuccess;
    if (size > kMemory || posix_memalign(pointer, 256, size) != 0) return cudaErrorMemoryAllocation;
    std::memset(*pointer, 0xff, size);
    r.device[address(*pointer)] = address(*pointer) + size;
    return cudaSuccess;
  });
}
/// Waits for the device, as CUDA's does; but nothing is said to be ordered by that.
cudaError_t cudaFree(void* pointer) {
  return call(__func__, If::always, [&](Runtime& r, Lock& lock) {
    if (pointer == nullptr) return cudaSuccess;
    for (auto const& item : mark_all(r)) settle(r, lock, item);
    if (r.device.erase(address(pointer)) == 0) return cudaErrorInvalidValue;
    std::free(pointer);
    return cudaSuccess;
  });
}
/// Of whole pages only.
cudaError_t cudaHostRegister(void* pointer, size_t size, unsigned) {
  return call(__func__, If::able, [&](Runtime& r, Lock&) {
    std::uintptr_t const begin = address(pointer), end = begin + size;
    if (size == 0 || (begin | end) % 4096 != 0) return cudaErrorInvalidValue;
    if (overlap(r.pinned, begin, end) != nullptr) return cudaErrorHostMemoryAlreadyRegistered;
    r.pinned[begin] = end;
    return cudaSuccess;
  });
}
cudaError_t cudaHostUnregister(void* pointer) {
  return CUDA_ON_HOST_CALL(always,
                           r.pinned.erase(address(pointer)) != 0 ? cudaSuccess : cudaErrorHostMemoryNotRegistered);
}

cudaError_t cudaMemcpyAsync(void* to, void const* from, size_t count, cudaMemcpyKind kind, cudaStream_t stream) {
  return CUDA_ON_HOST_STREAM_CALL(able, stream, copy(r, it, to, from, count, kind));
}
cudaError_t cudaMemcpy(void* to, void const* from, size_t count, cudaMemcpyKind kind) {
  return call_on(nullptr, __func__, If::able, [&](Runtime& r, Lock& lock, CUstream_st& stream) {
    cudaError_t const error = copy(r, stream, to, from, count, kind);
    return error == cudaSuccess ? wait(r, lock, stream.last) : error;
  });
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t count, cudaStream_t stream) {
  return CUDA_ON_HOST_STREAM_CALL(able, stream, fill(r, it, to, value, count));
}
cudaError_t cudaMemset(void* to, int value, size_t count) {
  return CUDA_ON_HOST_STREAM_CALL(able, nullptr, fill(r, it, to, value, count));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return call(__func__, If::able, [&](Runtime& r, Lock&) {
    if (flags != cudaStreamNonBlocking) return cudaErrorInvalidValue;  // would wait for the null stream
    r.handles.insert(*stream = make_stream(r));
    return cudaSuccess;
  });
}
/// Returns at once; the stream's work goes on.
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return call_on(stream, __func__, If::always, [&](Runtime& r, Lock&, CUstream_st& it) {
    r.handles.erase(stream);
    want(r, *push(it, nullptr));
    it.closing = true;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return CUDA_ON_HOST_STREAM_CALL(always, stream, wait(r, lock, push(it, nullptr)));
}
cudaError_t cudaStreamGetId(cudaStream_t stream, unsigned long long* id) {
  return CUDA_ON_HOST_STREAM_CALL(able, stream, (*id = it.id, cudaSuccess));
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return call_on(stream, __func__, If::able, [&](Runtime& r, Lock&, CUstream_st& it) {
    if (!r.events.contains(event)) return cudaErrorInvalidResourceHandle;
    if (event->recorded) push(it, nullptr, event->recorded);
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return CUDA_ON_HOST_CALL(able, (r.events.insert(*event = new CUevent_st), cudaSuccess));
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return call(__func__, If::always, [&](Runtime& r, Lock&) {
    if (r.events.erase(event) == 0) return cudaErrorInvalidResourceHandle;
    delete event;
    return cudaSuccess;
  });
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call_on(stream, __func__, If::able, [&](Runtime& r, Lock&, CUstream_st& it) {
    if (!r.events.contains(event)) return cudaErrorInvalidResourceHandle;
    event->recorded = push(it, nullptr);
    return cudaSuccess;
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return CUDA_ON_HOST_CALL(always,
                           r.events.contains(event) ? wait(r, lock, event->recorded) : cudaErrorInvalidResourceHandle);
}
