#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "sida/core/api.hpp"
#include "sida/core/expert_id.hpp"
#include "sida/core/memory.hpp"
#include "sida/core/result.hpp"
#include "sida/core/stream.hpp"
#include "sida/io/expert_source.hpp"

namespace sida::inline v0 {

/// Names one fill, from `FastTier::submit` until its listener call.
enum class FillTicket : std::uint64_t {};

enum class FillUrgency : std::uint8_t { demand, prefetch };

/// Record → slot.
struct FillRequest {
  FillTicket ticket{};
  ExpertId expert;
  SlotId slot{};
  FillUrgency urgency = FillUrgency::demand;
};

/// A resident expert and its bytes, as a wave leases it.
struct LeasedExpert {
  ExpertId id;
  SlotId slot{};
  std::byte const* data = nullptr;  ///< the record, in the tier's space; aligned to 4 KiB
};

/// Told once per submitted fill, from any thread, never from within `submit`.
class SIDA_API FillListener {
 public:
  /// From now on `FastTier::order_reader` returns without waiting (a host tier: the bytes are there; a
  /// GPU: the copy and its event are enqueued), or the fill failed and the slot's bytes are undefined.
  virtual void on_filled(FillTicket ticket, Status status) = 0;

 protected:
  ~FillListener() = default;
};

/// The small seam between a store and the memory that computes: slots in one arena, filled from the next tier.
/// The store decides what goes where and when; a tier moves bytes and orders them. Thread-safe.
class SIDA_API FastTier {
 public:
  virtual ~FastTier() = default;
  virtual Tier space() const noexcept = 0;

  /// Called once, before all others: makes room for `slots` slots of `slot_bytes` (a multiple of 4 KiB) and
  /// remembers whom to tell. @return out_of_memory with the bytes asked for, or when the system gives no thread.
  virtual Status open(std::uint32_t slots, std::size_t slot_bytes, FillListener& listener) = 0;

  /// The slot's bytes; fixed over the life of the tier. In the tier's space: a host program may read them only when
  /// `space()` is host.
  virtual std::byte const* slot_data(SlotId slot) const noexcept = 0;

  /// Starts a fill and returns; demands overtake prefetches that have not started. The refill is ordered after the
  /// slot's readers (see `release`).
  /// May throw when memory runs out; nothing is submitted then.
  virtual void submit(FillRequest const& request) = 0;

  /// A demand waits for this fill, which was submitted as a prefetch: from now on it is a demand, the last in line.
  /// It may be under way. A tier that starts every fill at once has nothing to do.
  virtual void promote(FillTicket /*ticket*/) {}

  /// Work enqueued on `reader` after this call sees the bytes of all these experts, one wave's. Called after
  /// `on_filled` reported success and before a slot of them is refilled.
  virtual Status order_reader(std::span<LeasedExpert const> wave, StreamRef reader) = 0;

  /// The work enqueued on `reader` so far was the last to read these slots under one lease; a later refill waits for
  /// it.
  virtual void release(std::span<LeasedExpert const> wave, StreamRef reader) noexcept = 0;

  /// Stops: fills that have not started are reported as `cancelled`, those under way end, and when this returns no
  /// listener call is running or will come. Called once, last.
  virtual void close() noexcept = 0;
};

/// Host memory filled by blocking reads of `source` on `io_threads` threads of its own, straight into the slots.
/// `memory` must outlive the tier and be of host space.
SIDA_API std::unique_ptr<FastTier> make_host_tier(std::shared_ptr<ExpertSource const> source, MemoryResource& memory,
                                                  unsigned io_threads);

}  // namespace sida::inline v0
