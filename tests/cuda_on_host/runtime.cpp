// Streams, events, memory and the control of them. Each stream is a queue that a thread of its own works off.

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "cuda_on_host/control.hpp"
#include "plumbing.hpp"

namespace cuda_on_host {
namespace {

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

}  // namespace
}  // namespace cuda_on_host

struct CUstream_st {
  std::deque<cuda_on_host::ItemRef> queue;
  cuda_on_host::ItemRef last;  // the newest, done or not
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
namespace {

using Ranges = std::map<std::uintptr_t, std::uintptr_t>;  // begin and end; they don't overlap

struct Runtime {
  std::mutex mutex;  // over everything
  std::condition_variable progress;
  std::set<CUstream_st*> streams;  // with the null stream and those that were destroyed and have work yet
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
// Never destroyed: threads of streams may outlive main.
Runtime& runtime() {
  static Runtime* const it = new Runtime;
  return *it;
}
template <class Body>
auto locked(Body const& body) {
  Unseen const unseen;
  Lock lock(runtime().mutex);
  return body(runtime(), lock);
}

thread_local cudaError_t last_error = cudaSuccess;

constexpr std::size_t kShared = 48 << 10;  // of a block, where its kernel has not asked for more
constexpr int kMostShared = 227 << 10;
constexpr std::size_t kMemory = std::size_t{1} << 30;  // of one allocation
std::uintptr_t address(void const* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

// ---- Streams

void want(Runtime& r, Item const& item) {
  if (item.done || item.stream->wanted >= item.place) return;
  item.stream->wanted = item.place;
  r.progress.notify_all();
}

void settle(Runtime& r, Lock& lock, ItemRef const& item) {
  if (!item) return;
  want(r, *item);
  r.progress.wait(lock, [&] { return item->done; });
}
/// Settles, and the caller comes after the item, which is not a kernel.
cudaError_t wait(Runtime& r, Lock& lock, ItemRef const& item) {
  settle(r, lock, item);
  Seen const seen;
  if (item) item->ended.acquire();
  return cudaSuccess;
}
void run(Runtime& r, CUstream_st& stream, Lock& lock, ItemRef const& item) {
  if (item->after) settle(r, lock, item->after);
  if (item->may_be_held) r.progress.wait(lock, [&] { return !r.modes.hold_copies || stream.wanted >= item->place; });
  auto const delay = std::chrono::microseconds(r.modes.shuffle ? stream.random() % 300 : 0);
  bool const works = r.sticky_error == cudaSuccess && item->work;
  lock.unlock();
  if (delay.count() != 0) std::this_thread::sleep_for(delay);
  {
    Seen const seen;
    item->enqueued.acquire();
    if (item->after) item->after->ended.acquire();
    if (!item->is_early) come_after_kernels();
    if (works) item->work();
    item->ended.release();
  }
  item->work = nullptr;
  item->after.reset();
  lock.lock();
}

void work_off(CUstream_st* stream) {
  Unseen const unseen;
  Runtime& r = runtime();
  {
    Lock lock(r.mutex);
    for (;;) {
      stream->work.wait(lock, [&] { return stream->closing || !stream->queue.empty(); });
      if (stream->queue.empty()) break;
      ItemRef const item = std::move(stream->queue.front());
      stream->queue.pop_front();
      run(r, *stream, lock, item);
      item->done = true;
      r.progress.notify_all();
    }
    r.streams.erase(stream);
  }
  delete stream;
}

CUstream_st* make_stream(Runtime& r) {
  auto* const stream = new CUstream_st;
  stream->random.seed(r.modes.shuffle.value_or(0) + r.streams.size());
  r.streams.insert(stream);
  std::thread(work_off, stream).detach();
  return stream;
}

/// The stream that a handle means, or null.
CUstream_st* find(Runtime& r, cudaStream_t handle) {
  if (handle != nullptr) return r.handles.contains(handle) ? handle : nullptr;
  if (r.null_stream == nullptr) r.null_stream = make_stream(r);
  return r.null_stream;
}

struct Kind {
  bool may_be_held = false, is_early = false;
};
ItemRef push(CUstream_st& stream, std::function<void()> work, ItemRef after = nullptr, Kind kind = {}) {
  auto item = std::make_shared<Item>();
  item->stream = &stream;
  item->place = ++stream.places;
  item->work = std::move(work);
  item->after = std::move(after);
  item->may_be_held = kind.may_be_held;
  item->is_early = kind.is_early;
  {
    Seen const seen;
    item->enqueued.release();
  }
  stream.queue.push_back(item);
  stream.last = item;
  stream.work.notify_all();
  return item;
}
/// Marks the end of what every stream has to do.
std::vector<ItemRef> mark_all(Runtime& r) {
  std::vector<ItemRef> ends;
  for (CUstream_st* const stream : r.streams) ends.push_back(stream->closing ? stream->last : push(*stream, nullptr));
  return ends;
}
cudaError_t wait_for_all(Runtime& r, Lock& lock) {
  for (auto const& item : mark_all(r)) wait(r, lock, item);
  return cudaSuccess;
}
void fail_device(cudaError_t error, std::string failure) {
  locked([&](Runtime& r, Lock&) {
    if (r.sticky_error != cudaSuccess) return;
    r.sticky_error = error;
    r.failure = std::move(failure);
  });
}

// ---- Calls

/// Counts a call; returns the error that it shall fail with.
int counted(Runtime& r, char const* function) {
  ++r.calls[function];
  return r.failing == function && --r.until_failure == 0 ? r.planned_error : 0;
}

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

// ---- For the other sources

int start(char const* function) {
  return locked([&](Runtime& r, Lock&) { return counted(r, function); });
}

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

void count_cublas_handles(int change) {
  locked([&](Runtime& r, Lock&) { r.cublas_handles += static_cast<std::size_t>(change); });
}

cudaError_t launch(cudaLaunchConfig_t const& config, void const* kernel, std::function<void()> body) {
  return call_on(config.stream, "cudaLaunchKernelEx", If::able, [&](Runtime& r, Lock&, CUstream_st& stream) {
    dim3 const grid = config.gridDim, block = config.blockDim;
    std::uint64_t const threads = std::uint64_t{block.x} * block.y * block.z;
    if (std::uint64_t{grid.x} * grid.y * grid.z * threads == 0 || grid.y > 65535 || grid.z > 65535 || threads > 1024) {
      return cudaErrorInvalidConfiguration;
    }
    auto const allowed = r.shared_allowed.find(kernel);
    std::size_t const most = allowed == r.shared_allowed.end() ? kShared : allowed->second;
    if (config.dynamicSmemBytes > most) return cudaErrorInvalidValue;
    bool const is_early = config.numAttrs > 0 && config.attrs[0].val.programmaticStreamSerializationAllowed != 0;
    auto work = [shape = LaunchShape{grid, block, config.dynamicSmemBytes, is_early}, body = std::move(body)] {
      std::string failure = run_blocks(shape, body);
      if (!failure.empty()) fail_device(cudaErrorLaunchFailure, std::move(failure));
    };
    push(stream, std::move(work), nullptr, {.is_early = is_early});
    return cudaSuccess;
  });
}

// ---- Control

void set(Modes const& modes) {
  locked([&](Runtime& r, Lock&) {
    r.modes = modes;
    std::uint64_t seed = modes.shuffle.value_or(0);
    for (CUstream_st* const stream : r.streams) stream->random.seed(++seed);
    r.progress.notify_all();
  });
}
void fail(std::string_view function, int n, int error) {
  locked([&](Runtime& r, Lock&) {
    r.failing = function;
    r.until_failure = n;
    r.planned_error = error;
  });
}
Calls calls() {
  return locked([](Runtime& r, Lock&) { return r.calls; });
}
std::string failure() {
  return locked([](Runtime& r, Lock&) { return r.failure; });
}
Live live() {
  return locked([](Runtime& r, Lock&) {
    return Live{r.device.size(), r.pinned.size(), r.handles.size(), r.events.size(), r.cublas_handles};
  });
}
void reset() {
  locked([](Runtime& r, Lock& lock) {
    r.modes = {};
    wait_for_all(r, lock);
    r.calls.clear();
    r.failing.clear();
    r.sticky_error = last_error = cudaSuccess;
    r.failure.clear();
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
