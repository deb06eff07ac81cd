#include <condition_variable>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "sida/core/expert_layout.hpp"
#include "sida/detail/try.hpp"
#include "sida/store/fast_tier.hpp"
#include "store/fill_queue.hpp"

namespace sida::inline v0 {
namespace {

/// Slots in one arena of host memory; a fill is a blocking read of the source, on threads of the tier's own, straight
/// into the slot. Readers are host threads, so order is: filled before read, released before refilled, which the
/// store keeps by itself.
class HostTier final : public FastTier {
 public:
  HostTier(std::shared_ptr<ExpertSource const> source, MemoryResource& memory, unsigned io_threads)
      : source_(std::move(source)), memory_(memory), io_threads_(io_threads == 0 ? 1 : io_threads) {}

  ~HostTier() override { close(); }

  Tier space() const noexcept override { return Tier::host; }

  Status open(std::uint32_t slots, std::size_t slot_bytes, FillListener& listener) override {
    if (memory_.space() != Tier::host) return Error(Errc::invalid_argument, "a host tier needs host memory");
    // The caller derived `slots` from a byte budget, so this product fits.
    SIDA_TRY_ASSIGN(arena_, Buffer::allocate(memory_, slots * slot_bytes, kRecordAlignment, "slots of experts"));
    slot_bytes_ = slot_bytes;
    listener_ = &listener;
    try {
      threads_.reserve(io_threads_);  // a thread that started always finds its place
      for (unsigned i = 0; i < io_threads_; ++i) threads_.emplace_back([this] { read_loop(); });
    } catch (std::exception const& error) {  // no thread, or no memory for one
      std::string const started = std::to_string(threads_.size());
      close();
      return Error(Errc::out_of_memory, "cannot start a thread to read experts: " + started + " of " +
                                            std::to_string(io_threads_) + " started: " + error.what());
    }
    return {};
  }

  std::byte const* slot_data(SlotId slot) const noexcept override { return slot_bytes_of(slot).data(); }

  void submit(FillRequest const& request) override {
    {
      std::lock_guard const lock(mutex_);
      waiting_.push(request);
    }
    work_.notify_one();
  }

  void promote(FillTicket ticket) override {
    std::lock_guard const lock(mutex_);
    waiting_.promote(ticket);
  }

  Status order_reader(std::span<LeasedExpert const>, StreamRef) override { return {}; }
  void release(std::span<LeasedExpert const>, StreamRef) noexcept override {}

  void close() noexcept override {
    {
      std::lock_guard const lock(mutex_);
      stop_ = true;
    }
    work_.notify_all();
    for (auto& thread : threads_) thread.join();
    threads_.clear();
    if (listener_ != nullptr) waiting_.abandon(*listener_);  // the queue is now nobody else's
  }

 private:
  std::span<std::byte> slot_bytes_of(SlotId slot) const noexcept {
    auto const bytes =
        const_cast<Buffer&>(arena_).bytes();  // the tier owns the bytes; who may write is the store's say
    return bytes.subspan(static_cast<std::uint32_t>(slot) * slot_bytes_, slot_bytes_);
  }

  void read_loop() {
    std::unique_lock lock(mutex_);
    for (;;) {
      work_.wait(lock, [&] { return stop_ || waiting_.has_demand() || waiting_.has_prefetch(); });
      if (stop_) return;
      FillRequest const request = waiting_.pop();
      lock.unlock();
      listener_->on_filled(request.ticket, read(request));
      lock.lock();
    }
  }

  Status read(FillRequest const& request) const {
    try {
      return source_->read(request.expert, slot_bytes_of(request.slot));
    } catch (std::exception const& error) {  // a source is the user's code, and may throw
      return Error(Errc::io, to_string(request.expert) + ": the source threw: " + error.what());
    } catch (...) {
      return Error(Errc::io, to_string(request.expert) + ": the source threw");
    }
  }

  std::shared_ptr<ExpertSource const> source_;
  MemoryResource& memory_;
  unsigned io_threads_;
  Buffer arena_;
  std::size_t slot_bytes_ = 0;
  FillListener* listener_ = nullptr;

  std::mutex mutex_;
  std::condition_variable work_;
  FillQueue waiting_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<FastTier> make_host_tier(std::shared_ptr<ExpertSource const> source, MemoryResource& memory,
                                         unsigned io_threads) {
  return std::make_unique<HostTier>(std::move(source), memory, io_threads);
}

}  // namespace sida::inline v0
