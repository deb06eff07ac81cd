#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <new>
#include <span>
#include <thread>
#include <vector>

#include "sida/store/expert_store.hpp"
#include "store/prefetcher.hpp"
#include "store/slot_table.hpp"

namespace sida::inline v0 {

/// Short enough to need no memory itself.
inline constexpr char kNoMemory[] = "out of memory";

/// Calls `f`, which returns a Status or a Result; where memory runs out, that is what is returned.
template <class F>
auto catching_no_memory(F const& f) -> decltype(f()) {
  try {
    return f();
  } catch (std::bad_alloc const&) {
    return Error(Errc::out_of_memory, kNoMemory);
  }
}

/// The store behind its public face: one mutex over the slot table, the horizon and the queue of waiting
/// acquires. The tier calls back into `on_filled`; nothing here calls the tier's blocking members under the mutex.
struct ExpertStore::Impl final : FillListener {
  Impl(std::span<std::uint32_t const> experts_per_layer, std::uint32_t slots, std::size_t slot_bytes,
       StoreOptions const& options);

  bool has(ExpertId id) const noexcept {
    return id.layer < experts_per_layer.size() && id.expert < experts_per_layer[id.layer];
  }
  /// Its number in [0, expert_count), where there is such an expert; and back.
  ExpertIndex index(ExpertId id) const noexcept { return first_of_layer[id.layer] + id.expert; }
  ExpertId id(ExpertIndex index) const;

  void on_filled(FillTicket ticket, Status status) override;

  /// The next wave of `event` begins: the horizon learns that it happens now and, with the first, of the later
  /// ones. Under the mutex.
  void arrive(DemandEvent& event);
  /// Waits for its turn and for room, and pins the wave. Then waits for the fills. @return the first failure. Where
  /// memory runs out it throws, and has given everything back.
  Status lease(std::unique_lock<std::mutex>& lock, DemandEvent const& event, std::span<ExpertIndex const> wave);
  /// Waits for its turn and for room, and pins the wave. @return cancelled.
  Status reserve(std::unique_lock<std::mutex>& lock, DemandEvent const& event, std::span<ExpertIndex const> wave);
  /// All or nothing: pins the experts of `wave` and starts what is missing. False when there's no room now.
  bool try_reserve(std::span<ExpertIndex const> wave, DemandEvent const& event);
  void start_missing(std::span<ExpertIndex const> wave, DemandEvent const& event);
  /// Waits until every expert of a reserved wave is ready; unpins them all on failure.
  Status await_fills(std::unique_lock<std::mutex>& lock, std::span<ExpertIndex const> wave);
  /// No fill of `wave` is under way.
  bool settled(std::span<ExpertIndex const> wave) const noexcept;
  /// After a fill: whether some thread may go on. Most fills are one of several that a thread waits for.
  bool should_wake() const noexcept;
  /// The first failure of a settled wave.
  Status outcome(std::span<ExpertIndex const> wave) const;
  void unpin(std::span<ExpertIndex const> wave);
  /// Starts prefetches while some may start. Under the mutex. Without memory there are none.
  void pump() noexcept;
  /// Gives a free slot to `expert` and starts to fill it; where memory runs out it throws, and the fill has failed.
  void load(ExpertIndex expert, SlotTable::Purpose purpose);
  void add_stall(std::chrono::steady_clock::time_point start);
  std::unique_ptr<SlotTable> make_table() const;

  std::vector<std::uint32_t> experts_per_layer;
  std::vector<ExpertIndex> first_of_layer;  // [layers + 1]
  std::uint32_t slots;
  std::size_t slot_bytes;
  StoreOptions options;
  std::unique_ptr<FastTier> tier;

  mutable std::mutex mutex;
  std::condition_variable changed;
  std::unique_ptr<SlotTable> table;
  Horizon horizon;
  Prefetcher prefetcher;
  std::deque<std::uint64_t> waiting;  // tickets of acquires, in order; only the first may reserve
  std::uint64_t next_ticket = 0;
  std::uint32_t leasing = 0;             // acquires between their start and `holders`
  std::vector<std::thread::id> holders;  // threads that hold a wave, once per wave; has room for all of `leasing`
  std::vector<std::span<ExpertIndex const>> awaited;  // waves whose fills are waited for; has room for all of `leasing`
  bool cancelled = false;
};

}  // namespace sida::inline v0
