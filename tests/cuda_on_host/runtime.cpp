// Streams and the control of them. Each stream is a queue that a thread of its own works off.

#include "runtime.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

namespace cuda_on_host {

// Never destroyed: threads of streams may outlive main.
Runtime& runtime() {
  static Runtime* const it = new Runtime;
  return *it;
}

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
    lock.unlock();
    {
      Seen const seen;
      end_blocks();
      r.gone.release();
    }
    lock.lock();
    r.streams.erase(stream);
  }
  delete stream;
}

CUstream_st* make_stream(Runtime& r) {
  static unsigned long long ids = 0;
  auto* const stream = new CUstream_st;
  stream->id = ++ids;
  stream->random.seed(r.modes.shuffle.value_or(0) + r.streams.size());
  r.streams.insert(stream);
  std::thread(work_off, stream).detach();
  return stream;
}

CUstream_st* find(Runtime& r, cudaStream_t handle) {
  if (handle != nullptr) return r.handles.contains(handle) ? handle : nullptr;
  if (r.null_stream == nullptr) r.null_stream = make_stream(r);
  return r.null_stream;
}

ItemRef push(CUstream_st& stream, std::function<void()> work, ItemRef after, Kind kind) {
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
std::vector<ItemRef> mark_all(Runtime& r) {
  std::vector<ItemRef> ends;
  for (CUstream_st* const stream : r.streams) ends.push_back(stream->closing ? stream->last : push(*stream, nullptr));
  return ends;
}
cudaError_t wait_for_all(Runtime& r, Lock& lock) {
  for (auto const& item : mark_all(r)) wait(r, lock, item);
  Seen const seen;
  r.gone.acquire();
  return cudaSuccess;
}
void fail_device(cudaError_t error, std::string failure) {
  locked([&](Runtime& r, Lock&) {
    if (r.sticky_error != cudaSuccess) return;
    r.sticky_error = error;
    r.failure = std::move(failure);
  });
}

int counted(Runtime& r, char const* function) {
  ++r.calls[function];
  if (r.failing != function || --r.until_failure != 0) return 0;
  bool const is_lost = r.planned_error == cudaErrorIllegalAddress || r.planned_error == cudaErrorLaunchFailure;
  if (is_lost) r.sticky_error = static_cast<cudaError_t>(r.planned_error);
  return r.planned_error;
}

// ---- For the other sources

int start(char const* function) {
  return locked([&](Runtime& r, Lock&) { return counted(r, function); });
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
