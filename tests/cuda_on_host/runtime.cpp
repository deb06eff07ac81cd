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
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>

#include "cuda_on_host/control.hpp"
#include "plumbing.hpp"

namespace cuda_on_host {
namespace {

using Clock = std::chrono::steady_clock;
using Lock = std::unique_lock<std::mutex>;

/// A piece of work in a stream; also what an event that was recorded stands for.
struct Item {
  CUstream_st* stream = nullptr;  // lives until the item is done
  std::uint64_t place = 0;        // in the stream
  std::vector<std::shared_ptr<Item>> after;
  std::function<void()> work;
  bool may_be_held = false;
  bool done = false;
  Clock::time_point ended_at;
  Token enqueued, ended;
};
using ItemRef = std::shared_ptr<Item>;

}  // namespace
}  // namespace cuda_on_host

struct CUstream_st {
  unsigned flags = cudaStreamNonBlocking;
  std::deque<cuda_on_host::ItemRef> queue;
  cuda_on_host::ItemRef last;  // the newest, done or not
  std::uint64_t places = 0;
  std::uint64_t wanted = 0;  // somebody waits for the item at this place
  bool closing = false;
  std::condition_variable work;
  std::mt19937_64 random;
};

struct CUevent_st {
  unsigned flags = 0;
  cuda_on_host::ItemRef recorded;
};

namespace cuda_on_host {
namespace {

struct Failure {
  std::string function;
  int calls_left = 0;
  int error = 0;
};
enum class Origin { registered, allocated };
struct Range {
  std::uintptr_t end = 0;   // of host memory: of its last page
  std::uintptr_t base = 0;  // as the caller knows it
  Origin origin = Origin::allocated;
};
using Ranges = std::map<std::uintptr_t, Range>;  // by their begin; they don't overlap

struct Runtime {
  std::mutex mutex;  // over everything
  std::condition_variable progress;
  std::set<CUstream_st*> streams;  // with the null stream and those that were destroyed and have work yet
  std::set<CUstream_st*> handles;
  std::set<CUevent_st*> events;
  CUstream_st* null_stream = nullptr;
  Ranges device, pinned;
  std::size_t cublas_handles = 0, used_memory = 0;
  Modes modes;
  std::map<std::string, int, std::less<>> calls;
  std::vector<Failure> failures;           // that a test asked for
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

std::uintptr_t const kPage = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
std::uintptr_t round_up(std::uintptr_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }
std::size_t free_memory(Runtime const& r) {
  return r.modes.total_memory - std::min(r.modes.total_memory, r.used_memory);
}
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
/// Settles, and the caller comes after the item.
cudaError_t wait(Runtime& r, Lock& lock, ItemRef const& item) {
  settle(r, lock, item);
  Seen const seen;
  if (item) item->ended.acquire();
  return cudaSuccess;
}
cudaError_t query(Runtime& r, ItemRef const& item) {
  if (item) want(r, *item);
  if (item && !item->done) return cudaErrorNotReady;
  Seen const seen;
  if (item) item->ended.acquire();
  return cudaSuccess;
}
std::vector<ItemRef> last_items(Runtime& r) {
  std::vector<ItemRef> items;
  for (CUstream_st* const stream : r.streams) items.push_back(stream->last);
  return items;
}
cudaError_t wait_for_all(Runtime& r, Lock& lock) {
  for (auto const& item : last_items(r)) wait(r, lock, item);
  return cudaSuccess;
}

void run(Runtime& r, CUstream_st& stream, Lock& lock, ItemRef const& item) {
  for (auto const& earlier : item->after) settle(r, lock, earlier);
  if (item->may_be_held) r.progress.wait(lock, [&] { return !r.modes.hold_copies || stream.wanted >= item->place; });
  auto const delay = std::chrono::microseconds(r.modes.shuffle ? stream.random() % 300 : 0);
  bool const works = r.sticky_error == cudaSuccess && item->work;
  lock.unlock();
  if (delay.count() != 0) std::this_thread::sleep_for(delay);
  {
    Seen const seen;
    item->enqueued.acquire();
    for (auto const& earlier : item->after) earlier->ended.acquire();
    if (works) item->work();
    item->ended.release();
  }
  item->work = nullptr;
  item->after.clear();
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
      item->ended_at = Clock::now();
      r.progress.notify_all();
    }
    r.streams.erase(stream);
  }
  delete stream;
}

CUstream_st* make_stream(Runtime& r, unsigned flags) {
  auto stream = std::make_unique<CUstream_st>();
  stream->flags = flags;
  stream->random.seed(r.modes.shuffle.value_or(0) + r.streams.size());
  try {
    std::thread(work_off, stream.get()).detach();
  } catch (std::system_error const&) {
    return nullptr;
  }
  r.streams.insert(stream.get());
  return stream.release();
}

/// The stream that a handle means, or null.
CUstream_st* find(Runtime& r, cudaStream_t handle) {
  if (handle != nullptr) return r.handles.contains(handle) ? handle : nullptr;
  if (r.null_stream == nullptr) r.null_stream = make_stream(r, cudaStreamDefault);
  return r.null_stream;
}

ItemRef push(Runtime& r, CUstream_st& stream, std::function<void()> work, std::vector<ItemRef> after = {},
             bool may_be_held = false) {
  auto item = std::make_shared<Item>();
  item->stream = &stream;
  item->place = ++stream.places;
  item->work = std::move(work);
  item->after = std::move(after);
  item->may_be_held = may_be_held;
  // The null stream and those that aren't "non-blocking" wait for each other.
  if (&stream == r.null_stream) {
    for (CUstream_st* const other : r.streams) {
      if (other != &stream && other->flags == cudaStreamDefault && other->last) item->after.push_back(other->last);
    }
  } else if (stream.flags == cudaStreamDefault && r.null_stream != nullptr && r.null_stream->last) {
    item->after.push_back(r.null_stream->last);
  }
  {
    Seen const seen;
    item->enqueued.release();
  }
  stream.queue.push_back(item);
  stream.last = item;
  stream.work.notify_all();
  return item;
}
bool idle(CUstream_st const& stream) { return !stream.last || stream.last->done; }

void fail_device(cudaError_t error, std::string failure) {
  locked([&](Runtime& r, Lock&) {
    if (r.sticky_error != cudaSuccess) return;
    r.sticky_error = error;
    r.failure = std::move(failure);
  });
}

// ---- Calls

/// Counts a call; returns the error that it shall fail with. `if_any`: the one where any function's was to fail.
int counted(Runtime& r, char const* function, int if_any = 0) {
  ++r.calls[function];
  int error = 0;
  for (auto& [name, calls_left, own] : r.failures) {
    if (!name.empty() && name != function) continue;
    if (--calls_left == 0) error = name.empty() && if_any != 0 ? if_any : own;
  }
  std::erase_if(r.failures, [](Failure const& failure) { return failure.calls_left == 0; });
  return error;
}

enum class If { able, always };  // whether a call that shall fail does its work first

template <class Body>
cudaError_t call(char const* function, If when, Body const& body) {
  return locked([&](Runtime& r, Lock& lock) {
    auto error = static_cast<cudaError_t>(counted(r, function));
    if (r.modes.device_error != cudaSuccess) error = r.modes.device_error;
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
#define CUDA_ON_HOST_CALL(when, expression) \
  call(__func__, If::when, [&]([[maybe_unused]] Runtime& r, [[maybe_unused]] Lock& lock) { return expression; })

// ---- Memory

enum class Where { device, pinned, pageable, wrong };

Ranges::value_type const* overlap(Ranges const& ranges, std::uintptr_t begin, std::uintptr_t end) {
  auto next = ranges.lower_bound(end);
  return next != ranges.begin() && (--next)->second.end > begin ? &*next : nullptr;
}
/// Where all bytes of a range are.
Where where(Runtime const& r, void const* pointer, std::size_t size) {
  std::uintptr_t const begin = address(pointer), end = begin + size;
  auto const* const device = overlap(r.device, begin, end);
  auto const* const found = device != nullptr ? device : overlap(r.pinned, begin, end);
  if (found == nullptr) return pointer != nullptr ? Where::pageable : Where::wrong;
  if (begin < found->first || end > found->second.end) return Where::wrong;
  return device != nullptr ? Where::device : Where::pinned;
}

cudaError_t pin(Runtime& r, void* pointer, std::size_t size, Origin origin) {
  if (pointer == nullptr || size == 0) return cudaErrorInvalidValue;
  std::uintptr_t const begin = address(pointer) / kPage * kPage, end = round_up(address(pointer) + size);
  if (overlap(r.pinned, begin, end) != nullptr) return cudaErrorHostMemoryAlreadyRegistered;
  r.pinned[begin] = {end, address(pointer), origin};
  return cudaSuccess;
}
cudaError_t unpin(Runtime& r, void* pointer, Origin origin, cudaError_t if_unknown) {
  auto const found = r.pinned.find(address(pointer) / kPage * kPage);
  bool const known =
      found != r.pinned.end() && found->second.base == address(pointer) && found->second.origin == origin;
  if (known) r.pinned.erase(found);
  return known ? cudaSuccess : if_unknown;
}

cudaError_t copy(Runtime& r, void* to, void const* from, std::size_t count, cudaMemcpyKind kind, cudaStream_t handle) {
  CUstream_st* const stream = find(r, handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (count == 0) return cudaSuccess;
  Where const target = where(r, to, count), source = where(r, from, count);
  bool const to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  bool const from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  bool const as_said = to_device == (target == Where::device) && from_device == (source == Where::device);
  if (target == Where::wrong || source == Where::wrong || (kind != cudaMemcpyDefault && !as_said)) {
    return cudaErrorInvalidValue;
  }
  std::shared_ptr<char[]> staged;
  if (source == Where::pageable) {
    staged = std::make_shared<char[]>(count);
    Seen const seen;
    std::memcpy(staged.get(), from, count);
  }
  if (r.modes.poison_destinations) {
    if (idle(*stream)) {
      std::memset(to, 0xff, count);
    } else {
      push(r, *stream, [=] { std::memset(to, 0xff, count); });
    }
  }
  push(
      r, *stream, [=] { std::memcpy(to, staged ? staged.get() : from, count); }, {}, true);
  return cudaSuccess;
}

cudaError_t fill(Runtime& r, void* to, int value, std::size_t count, cudaStream_t handle) {
  CUstream_st* const stream = find(r, handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (count == 0) return cudaSuccess;
  if (where(r, to, count) != Where::device) return cudaErrorInvalidValue;
  push(r, *stream, [=] { std::memset(to, value, count); });
  return cudaSuccess;
}

cudaError_t create(Runtime& r, cudaStream_t* stream, unsigned flags) {
  if (stream == nullptr || flags > cudaStreamNonBlocking) return cudaErrorInvalidValue;
  *stream = make_stream(r, flags);
  if (*stream == nullptr) return cudaErrorMemoryAllocation;
  r.handles.insert(*stream);
  return cudaSuccess;
}
cudaError_t create(Runtime& r, cudaEvent_t* event, unsigned flags) {
  if (event == nullptr || flags > (cudaEventBlockingSync | cudaEventDisableTiming)) return cudaErrorInvalidValue;
  *event = new CUevent_st{flags, nullptr};
  r.events.insert(*event);
  return cudaSuccess;
}

}  // namespace

// ---- For the other sources

int start(char const* function, int unknown_error) {
  return locked([&](Runtime& r, Lock&) {
    int const error = counted(r, function, unknown_error);
    if (error != 0) return error;
    return r.modes.device_error != cudaSuccess || r.sticky_error != cudaSuccess ? unknown_error : 0;
  });
}

cudaError_t enqueue(cudaStream_t handle, std::function<void()> work, std::initializer_list<void const*> addresses) {
  return locked([&](Runtime& r, Lock&) {
    CUstream_st* const stream = find(r, handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    bool const legal = std::ranges::all_of(addresses, [&](void const* at) { return where(r, at, 1) == Where::device; });
    if (!legal) work = [] { fail_device(cudaErrorIllegalAddress, "cublasLtMatmul: a matrix is not in device memory"); };
    push(r, *stream, std::move(work));
    return cudaSuccess;
  });
}

void count_cublas_handles(int change) {
  locked([&](Runtime& r, Lock&) { r.cublas_handles += static_cast<std::size_t>(change); });
}

void multiply(float const* a_transposed, float const* b, float* c, std::size_t m, std::size_t n, std::size_t k) {
  for (std::size_t column = 0; column < n; ++column) {
    for (std::size_t row = 0; row < m; ++row) {
      float sum = 0;
      for (std::size_t i = 0; i < k; ++i) sum += a_transposed[row * k + i] * b[column * k + i];
      c[column * m + row] = sum;
    }
  }
}

cudaError_t launch(cudaLaunchConfig_t const& config, std::function<void()> body) {
  return call("cudaLaunchKernelEx", If::able, [&](Runtime& r, Lock&) {
    CUstream_st* const stream = find(r, config.stream);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    dim3 const grid = config.gridDim, block = config.blockDim;
    std::uint64_t const threads = std::uint64_t{block.x} * block.y * block.z;
    if (std::uint64_t{grid.x} * grid.y * grid.z == 0 || grid.y > 65535 || grid.z > 65535 || threads == 0 ||
        block.z > 64 || threads > 1024) {
      return cudaErrorInvalidConfiguration;
    }
    if (config.dynamicSmemBytes != 0) return cudaErrorNotSupported;
    push(r, *stream, [grid, block, body = std::move(body)] {
      std::string failure = run_blocks(grid, block, body);
      if (!failure.empty()) fail_device(cudaErrorLaunchFailure, std::move(failure));
    });
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
  locked([&](Runtime& r, Lock&) { r.failures.push_back({std::string(function), n, error}); });
}
int calls(std::string_view function) {
  return locked([&](Runtime& r, Lock&) {
    int sum = 0;
    for (auto const& [name, count] : r.calls) sum += function.empty() || function == name ? count : 0;
    return sum;
  });
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
    r.failures.clear();
    r.sticky_error = last_error = cudaSuccess;
    r.failure.clear();
  });
}

}  // namespace cuda_on_host

// ---- The interface

using namespace cuda_on_host;

#define CUDA_ON_HOST_NAME(name, number, text) \
  if (error == (name)) return #name;
#define CUDA_ON_HOST_TEXT(name, number, text) \
  if (error == (name)) return (text);
char const* cudaGetErrorName(cudaError_t error) {
  CUDA_ON_HOST_ERRORS(CUDA_ON_HOST_NAME)
  return "unrecognized error code";
}
char const* cudaGetErrorString(cudaError_t error) {
  CUDA_ON_HOST_ERRORS(CUDA_ON_HOST_TEXT)
  return "unrecognized error code";
}
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
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return call(__func__, If::able, [&](Runtime& r, Lock&) {
    if (device != 0) return cudaErrorInvalidDevice;
    *properties = {"cuda_on_host", r.modes.total_memory, 48 << 10, 32, 1024, 9, 0, 2, 1 << 20};
    return cudaSuccess;
  });
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return CUDA_ON_HOST_CALL(able, (*least = 0, *greatest = -5, cudaSuccess));
}
cudaError_t cudaDeviceSynchronize() { return CUDA_ON_HOST_CALL(always, wait_for_all(r, lock)); }
cudaError_t cudaRuntimeGetVersion(int* version) {
  return CUDA_ON_HOST_CALL(able, (*version = CUDART_VERSION, cudaSuccess));
}
cudaError_t cudaDriverGetVersion(int* version) {
  return CUDA_ON_HOST_CALL(able, (*version = CUDART_VERSION, cudaSuccess));
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return CUDA_ON_HOST_CALL(able, (*total = r.modes.total_memory, *free = free_memory(r), cudaSuccess));
}
cudaError_t cudaMalloc(void** pointer, size_t size) {
  return call(__func__, If::able, [&](Runtime& r, Lock&) {
    if (pointer == nullptr) return cudaErrorInvalidValue;
    *pointer = nullptr;
    if (size == 0) return cudaSuccess;
    if (size > free_memory(r) || posix_memalign(pointer, 256, size) != 0) return cudaErrorMemoryAllocation;
    std::memset(*pointer, 0xff, size);
    r.device[address(*pointer)] = {address(*pointer) + size, address(*pointer), Origin::allocated};
    r.used_memory += size;
    return cudaSuccess;
  });
}
/// Waits for the device, as CUDA's does; but nothing is said to be ordered by that.
cudaError_t cudaFree(void* pointer) {
  return call(__func__, If::always, [&](Runtime& r, Lock& lock) {
    if (pointer == nullptr) return cudaSuccess;
    auto const found = r.device.find(address(pointer));
    if (found == r.device.end()) return cudaErrorInvalidValue;
    for (auto const& item : last_items(r)) settle(r, lock, item);
    r.used_memory -= found->second.end - found->first;
    r.device.erase(found);
    std::free(pointer);
    return cudaSuccess;
  });
}
cudaError_t cudaMallocHost(void** pointer, size_t size) {
  return call(__func__, If::able, [&](Runtime& r, Lock&) {
    if (pointer == nullptr || size == 0) return cudaErrorInvalidValue;
    if (posix_memalign(pointer, kPage, round_up(size)) != 0) return cudaErrorMemoryAllocation;
    return pin(r, *pointer, size, Origin::allocated);
  });
}
cudaError_t cudaFreeHost(void* pointer) {
  return call(__func__, If::always, [&](Runtime& r, Lock&) {
    if (pointer == nullptr) return cudaSuccess;
    cudaError_t const error = unpin(r, pointer, Origin::allocated, cudaErrorInvalidValue);
    Seen const seen;
    if (error == cudaSuccess) std::free(pointer);
    return error;
  });
}
cudaError_t cudaHostRegister(void* pointer, size_t size, unsigned) {
  return CUDA_ON_HOST_CALL(able, pin(r, pointer, size, Origin::registered));
}
cudaError_t cudaHostUnregister(void* pointer) {
  return CUDA_ON_HOST_CALL(always, unpin(r, pointer, Origin::registered, cudaErrorHostMemoryNotRegistered));
}

cudaError_t cudaMemcpyAsync(void* to, void const* from, size_t count, cudaMemcpyKind kind, cudaStream_t stream) {
  return CUDA_ON_HOST_CALL(able, copy(r, to, from, count, kind, stream));
}
cudaError_t cudaMemcpy(void* to, void const* from, size_t count, cudaMemcpyKind kind) {
  return call(__func__, If::able, [&](Runtime& r, Lock& lock) {
    cudaError_t const error = copy(r, to, from, count, kind, nullptr);
    if (error == cudaSuccess) wait(r, lock, find(r, nullptr)->last);
    return error;
  });
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t count, cudaStream_t stream) {
  return CUDA_ON_HOST_CALL(able, fill(r, to, value, count, stream));
}
cudaError_t cudaMemset(void* to, int value, size_t count) {
  return CUDA_ON_HOST_CALL(able, fill(r, to, value, count, nullptr));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return CUDA_ON_HOST_CALL(able, create(r, stream, flags));
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return CUDA_ON_HOST_CALL(able, create(r, stream, flags));
}
/// Returns at once; the stream's work goes on.
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return call(__func__, If::always, [&](Runtime& r, Lock&) {
    if (r.handles.erase(stream) == 0) return cudaErrorInvalidResourceHandle;
    if (stream->last) want(r, *stream->last);
    stream->closing = true;
    stream->work.notify_all();
    return cudaSuccess;
  });
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return call(__func__, If::always, [&](Runtime& r, Lock& lock) {
    CUstream_st* const found = find(r, stream);
    return found == nullptr ? cudaErrorInvalidResourceHandle : wait(r, lock, found->last);
  });
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return call(__func__, If::able, [&](Runtime& r, Lock&) {
    CUstream_st* const found = find(r, stream);
    return found == nullptr ? cudaErrorInvalidResourceHandle : query(r, found->last);
  });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return call(__func__, If::able, [&](Runtime& r, Lock&) {
    CUstream_st* const found = find(r, stream);
    if (found == nullptr || !r.events.contains(event)) return cudaErrorInvalidResourceHandle;
    if (event->recorded) push(r, *found, nullptr, {event->recorded});
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return CUDA_ON_HOST_CALL(able, create(r, event, cudaEventDefault)); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return CUDA_ON_HOST_CALL(able, create(r, event, flags));
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return call(__func__, If::always, [&](Runtime& r, Lock&) {
    if (r.events.erase(event) == 0) return cudaErrorInvalidResourceHandle;
    delete event;
    return cudaSuccess;
  });
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call(__func__, If::able, [&](Runtime& r, Lock&) {
    CUstream_st* const found = find(r, stream);
    if (found == nullptr || !r.events.contains(event)) return cudaErrorInvalidResourceHandle;
    event->recorded = push(r, *found, nullptr);
    return cudaSuccess;
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return CUDA_ON_HOST_CALL(always,
                           r.events.contains(event) ? wait(r, lock, event->recorded) : cudaErrorInvalidResourceHandle);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return CUDA_ON_HOST_CALL(able, r.events.contains(event) ? query(r, event->recorded) : cudaErrorInvalidResourceHandle);
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return call(__func__, If::able, [&](Runtime& r, Lock&) {
    for (cudaEvent_t const event : {start, end}) {
      bool const timed = r.events.contains(event) && (event->flags & cudaEventDisableTiming) == 0 && event->recorded;
      if (!timed) return cudaErrorInvalidResourceHandle;
      if (!event->recorded->done) return cudaErrorNotReady;
    }
    std::chrono::duration<float, std::milli> const elapsed = end->recorded->ended_at - start->recorded->ended_at;
    *milliseconds = elapsed.count();
    return cudaSuccess;
  });
}
