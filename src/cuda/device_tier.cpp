#include "sida/cuda/device_tier.hpp"

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cuda/range.hpp"
#include "cuda/reader_events.hpp"

#include "sida/core/expert_layout.hpp"
#include "sida/cuda/handles.hpp"
#include "sida/cuda/memory.hpp"
#include "sida/detail/try.hpp"
#include "store/fill_queue.hpp"

namespace sida::inline v0::cuda {
namespace {

constexpr unsigned kCopyStreams = 2;

/// Slots in one block of device memory. A fill is done by one of a few threads, from its lease of the host store to
/// the end of its copy: a thread holds one wave of a store at a time, and a copy's bytes must stay leased until the
/// copy has ended.
class DeviceTier final : public FastTier {
 public:
  DeviceTier(ExpertStore& host, MemoryResource& memory, DeviceTierOptions const& options)
      : host_(host), memory_(memory), options_(options) {}

  ~DeviceTier() override { close(); }

  Tier space() const noexcept override { return Tier::device; }
  Status open(std::uint32_t slots, std::size_t slot_bytes, FillListener& listener) override;
  std::byte const* slot_data(SlotId slot) const noexcept override { return slot_bytes_of(slot); }
  void submit(FillRequest const& request) override;
  void promote(FillTicket ticket) override;
  Status order_reader(std::span<LeasedExpert const> wave, StreamRef reader) override;
  void release(std::span<LeasedExpert const> wave, StreamRef reader) noexcept override;
  void close() noexcept override;

 private:
  /// What a slot's next reader and its next refill wait for.
  struct Slot {
    std::optional<Event> filled;
    /// Twice the number of the fill, and 1 more once its copy has ended: then nobody needs to wait for `filled`. The
    /// number tells a copy's end from that of the one before.
    std::atomic<std::uint64_t> fill = 1;
    ReaderEvents::List readers;

    bool has_arrived() const noexcept { return fill.load(std::memory_order_acquire) % 2 == 1; }
    void set_arrived(std::uint64_t number) noexcept {
      fill.compare_exchange_strong(number, number + 1, std::memory_order_release, std::memory_order_relaxed);
    }
  };
  /// What a copying thread owns.
  struct Copier {
    Buffer staging;  // of one record, where the host store's memory is not pinned
    Stream const* stream = nullptr;
    std::thread thread;
  };

  Status open_copier(Copier& copier, std::size_t number);
  void copy_loop(Copier& copier);
  std::optional<FillRequest> take(std::unique_lock<std::mutex>& lock);
  /// From the lease to the enqueued copy. `lease` then holds what the copy reads.
  Status start_copy(FillRequest const& request, Copier& copier, Wave& lease);
  Status enqueue_copy(FillRequest const& request, Copier& copier, Wave& lease, cudaStream_t stream);
  std::byte* slot_bytes_of(SlotId slot) const noexcept {
    return base_ + static_cast<std::size_t>(static_cast<std::uint32_t>(slot)) * slot_bytes_;
  }
  Slot& at(SlotId slot) noexcept { return slots_[static_cast<std::uint32_t>(slot)]; }

  ExpertStore& host_;
  MemoryResource& memory_;
  DeviceTierOptions options_;
  int device_ = 0;
  Buffer arena_;
  std::byte* base_ = nullptr;  // the first slot
  std::size_t slot_bytes_ = 0;
  FillListener* listener_ = nullptr;
  std::unique_ptr<Slot[]> slots_;
  PinnedMemory pinned_;
  std::vector<Stream> streams_;
  std::array<Copier, kCopyThreads> copiers_;

  std::mutex mutex_;  // of all that follows, and of the slots' readers
  ReaderEvents events_;
  std::condition_variable work_;
  FillQueue waiting_;
  unsigned prefetching_ = 0;
  bool stop_ = false;
};

Status DeviceTier::open(std::uint32_t slots, std::size_t slot_bytes, FillListener& listener) {
  if (memory_.space() != Tier::device) return Error(Errc::invalid_argument, "a device tier needs device memory");
  if (host_.space() != Tier::host) return Error(Errc::invalid_argument, "a device tier is filled from host memory");
  if (host_.slot_bytes() < slot_bytes) {
    return Error(Errc::invalid_argument, "a device tier with slots of " + std::to_string(slot_bytes) +
                                             " bytes over a host store with slots of " +
                                             std::to_string(host_.slot_bytes()));
  }
  Range::prepare();
  SIDA_TRY(check(cudaGetDevice(&device_), "cudaGetDevice"));
  // Records are aligned to 4 KiB; device memory promises less.
  SIDA_TRY_ASSIGN(arena_, Buffer::allocate(memory_, slots * slot_bytes + kRecordAlignment, 256, "slots of experts"));
  std::size_t const misaligned = reinterpret_cast<std::uintptr_t>(arena_.bytes().data()) % kRecordAlignment;
  base_ = arena_.bytes().data() + (misaligned == 0 ? 0 : kRecordAlignment - misaligned);
  slot_bytes_ = slot_bytes;
  listener_ = &listener;
  slots_ = std::make_unique<Slot[]>(slots);
  for (std::uint32_t i = 0; i < slots; ++i) {
    SIDA_TRY_ASSIGN(slots_[i].filled, Event::create());
  }
  SIDA_TRY(events_.reserve(slots + std::size_t{1}));  // one for each slot, and the next: later none is created
  for (unsigned i = 0; i < kCopyStreams; ++i) {
    SIDA_TRY_ASSIGN(Stream stream, Stream::create());
    streams_.push_back(std::move(stream));
  }
  for (std::size_t i = 0; i < copiers_.size(); ++i) {
    if (Status status = open_copier(copiers_[i], i); !status) {
      close();
      return status;
    }
  }
  return {};
}

Status DeviceTier::open_copier(Copier& copier, std::size_t number) {
  copier.stream = &streams_[number % kCopyStreams];
  if (!options_.host_is_pinned) {
    SIDA_TRY_ASSIGN(copier.staging, Buffer::allocate(pinned_, slot_bytes_, kRecordAlignment, "an expert on its way"));
  }
  try {
    copier.thread = std::thread([this, &copier] { copy_loop(copier); });
  } catch (std::exception const& error) {
    return Error(Errc::out_of_memory, std::string("cannot start a thread to copy experts: ") + error.what());
  }
  return {};
}

void DeviceTier::submit(FillRequest const& request) {
  {
    std::lock_guard const lock(mutex_);
    waiting_.push(request);
  }
  work_.notify_one();
}

void DeviceTier::promote(FillTicket ticket) {
  {
    std::lock_guard const lock(mutex_);
    waiting_.promote(ticket);
  }
  work_.notify_one();
}

Status DeviceTier::order_reader(std::span<LeasedExpert const> wave, StreamRef reader) {
  if (!reader.is_host() && native(reader) == cudaStreamPerThread) {
    return {Errc::invalid_argument,
            "cudaStreamPerThread is another stream in each thread, and a wave may change threads: give a stream"};
  }
  for (LeasedExpert const& expert : wave) {
    Slot const& slot = at(expert.slot);
    if (slot.has_arrived()) continue;
    if (reader.is_host()) {
      SIDA_TRY(slot.filled->synchronize());
    } else {
      SIDA_TRY(slot.filled->hold_back(native(reader)));
    }
  }
  return {};
}

void DeviceTier::release(std::span<LeasedExpert const> wave, StreamRef reader) noexcept {
  if (reader.is_host() || wave.empty()) return;  // a host reader has done what it did
  std::lock_guard const lock(mutex_);
  ReaderEvents::Mark const mark = events_.mark(native(reader));
  for (LeasedExpert const& expert : wave) events_.add(at(expert.slot).readers, mark);
}

void DeviceTier::close() noexcept {
  {
    std::lock_guard const lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  for (Copier& copier : copiers_) {
    if (copier.thread.joinable()) copier.thread.join();
  }
  if (listener_ != nullptr) waiting_.abandon(*listener_);  // the queue is now nobody else's
  std::lock_guard const lock(mutex_);
  events_.wait_for_all();  // the arena must outlive its readers
}

std::optional<FillRequest> DeviceTier::take(std::unique_lock<std::mutex>& lock) {
  auto const may_prefetch = [&] { return waiting_.has_prefetch() && prefetching_ < kPrefetchCopies; };
  work_.wait(lock, [&] { return stop_ || waiting_.has_demand() || may_prefetch(); });
  if (stop_) return std::nullopt;
  return waiting_.pop();
}

void DeviceTier::copy_loop(Copier& copier) {
  bool is_current = false;  // the device, which is a thread's own setting
  std::unique_lock lock(mutex_);
  while (auto const request = take(lock)) {
    bool const ahead = request->urgency == FillUrgency::prefetch;
    if (ahead) ++prefetching_;
    lock.unlock();
    Range const range(ahead ? "sida: copy ahead" : "sida: copy");
    Wave lease;
    Slot& slot = at(request->slot);
    std::uint64_t number = 0;
    Status started = is_current ? Status() : check(cudaSetDevice(device_), "cudaSetDevice");
    is_current = static_cast<bool>(started);
    if (is_current) started = start_copy(*request, copier, lease);
    bool const copying = static_cast<bool>(started);
    if (copying) number = slot.fill.load(std::memory_order_relaxed);
    listener_->on_filled(request->ticket, std::move(started));
    // From here on the slot may be read, released and filled again: its readers wait for the copy, and a refill for
    // both. What must not happen before the copy's end is that the record leaves host memory.
    if (copying && slot.filled->synchronize()) slot.set_arrived(number);
    lease.release();
    lock.lock();
    if (ahead) {
      --prefetching_;
      work_.notify_one();
    }
  }
}

Status DeviceTier::start_copy(FillRequest const& request, Copier& copier, Wave& lease) {
  SIDA_TRY_ASSIGN(lease, host_.acquire(std::span(&request.expert, 1), StreamRef::host()));
  cudaStream_t const stream = copier.stream->get();
  Status status = enqueue_copy(request, copier, lease, stream);
  // Half of it may be under way, without an event that says so.
  if (!status) static_cast<void>(cudaStreamSynchronize(stream));
  return status;
}

Status DeviceTier::enqueue_copy(FillRequest const& request, Copier& copier, Wave& lease, cudaStream_t stream) {
  Slot& slot = at(request.slot);
  if (!slot.has_arrived()) SIDA_TRY(slot.filled->hold_back(stream));  // a copy that nobody waited for
  {
    std::lock_guard const lock(mutex_);
    SIDA_TRY(events_.hold_back(slot.readers, stream));
  }
  std::byte* const to = slot_bytes_of(request.slot);
  std::byte const* from = lease.experts().front().data;
  if (!options_.host_is_pinned) {
    std::memcpy(copier.staging.bytes().data(), from, slot_bytes_);
    from = copier.staging.bytes().data();
    lease.release();
  }
  if (options_.poison) SIDA_TRY(check(cudaMemsetAsync(to, 0xFF, slot_bytes_, stream), "cudaMemsetAsync"));
  SIDA_TRY(check(cudaMemcpyAsync(to, from, slot_bytes_, cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync"));
  SIDA_TRY(slot.filled->record(stream));
  slot.fill.store((slot.fill.load(std::memory_order_relaxed) / 2 + 1) * 2, std::memory_order_release);
  std::lock_guard const lock(mutex_);
  events_.forget(slot.readers);
  return {};
}

}  // namespace

std::unique_ptr<FastTier> make_device_tier(ExpertStore& host, MemoryResource& memory,
                                           DeviceTierOptions const& options) {
  return std::make_unique<DeviceTier>(host, memory, options);
}

}  // namespace sida::inline v0::cuda
