#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "sida/core/api.hpp"
#include "sida/core/expert_id.hpp"
#include "sida/core/result.hpp"
#include "sida/core/stream.hpp"
#include "sida/policy/eviction_policy.hpp"
#include "sida/policy/horizon.hpp"
#include "sida/store/fast_tier.hpp"
#include "sida/store/store_stats.hpp"

namespace sida::inline v0 {

struct StoreOptions {
  /// Hard ceiling in slot bytes for all that is resident or on its way; slots = budget / slot bytes.
  std::size_t budget_bytes = 0;
  PolicyKind policy = PolicyKind::lfru;
  /// Prefetch fills under way at once; the rest waits in the store, where a demand overtakes it. A demand waits behind
  /// those that the tier has begun. As many as the tier
  /// reads at once keep a disk busy; more only commit to guesses sooner.
  std::uint32_t prefetch_depth = 4;
};

/// The experts of one event that fit the slots at once, pinned: while a wave lives, their bytes neither move nor
/// leave. Move-only; the destructor never blocks. Must not outlive its store. May be released on any thread, but counts
/// as held by the thread that acquired it: a thread that was handed a wave, and then acquires one of its own, may wait
/// for itself.
class [[nodiscard]] Wave {
 public:
  Wave() noexcept = default;
  SIDA_API Wave(Wave&& other) noexcept;
  SIDA_API Wave& operator=(Wave&& other) noexcept;
  SIDA_API ~Wave();

  /// Ascending by id.
  std::span<LeasedExpert const> experts() const& noexcept { return experts_; }
  std::span<LeasedExpert const> experts() const&& = delete;  // would dangle
  std::size_t size() const noexcept { return experts_.size(); }
  bool empty() const noexcept { return experts_.empty(); }

  /// The stream whose work reads the experts last: slots are refilled after it. By default the stream of the acquire.
  void set_last_reader(StreamRef stream) noexcept { last_reader_ = stream; }
  /// Unpins now. Called by the destructor.
  SIDA_API void release() noexcept;

 private:
  friend class DemandEvent;
  class ExpertStore* store_ = nullptr;
  std::vector<LeasedExpert> experts_;
  StreamRef last_reader_ = StreamRef::host();
  std::thread::id holder_;  // who acquired it
};

/// Where a demand event stands in a submitted plan. The default is "not planned".
struct PlanPosition {
  PlanId plan = PlanId::none;
  std::uint32_t event = 0;
};

/// One demand event: all experts that one layer step of one batch needs, as one unit. Larger than the slots, it is
/// served as consecutive waves of ascending id. Move-only; must not outlive its store.
class [[nodiscard]] DemandEvent {
 public:
  SIDA_API DemandEvent(DemandEvent&& other) noexcept;
  SIDA_API DemandEvent& operator=(DemandEvent&& other) noexcept;
  SIDA_API ~DemandEvent();

  bool done() const noexcept { return next_ >= experts_.size(); }
  /// Experts of the wave that `next_wave` will lease.
  SIDA_API std::span<ExpertId const> upcoming() const noexcept;
  /// Leases the next wave, all or nothing: blocks until its experts are readable by work enqueued on `reader`
  /// afterwards. After a failure (but `invalid_argument`) it may be called again for the same wave.
  /// @return would_deadlock when the calling thread acquired a wave of this store that is still alive, wherever that
  /// wave is now; cancelled; io, corrupt, device; out_of_memory.
  SIDA_API Result<Wave> next_wave(StreamRef reader);

 private:
  friend class ExpertStore;
  DemandEvent() = default;
  Result<Wave> lease_next(StreamRef reader);
  void forget_later_waves() noexcept;

  class ExpertStore* store_ = nullptr;
  std::vector<ExpertId> experts_;     // ascending
  std::vector<ExpertIndex> indices_;  // the same
  std::size_t next_ = 0;              // first expert of the next wave
  std::uint32_t wave_ = 0;            // number of the next wave
  PlanPosition position_;
  bool arrived_ = false;               // the store knows that the event happens
  bool was_planned_ = false;           // a plan had announced it
  std::vector<ExpertIndex> planned_;   // what that plan named
  PlanId later_waves_ = PlanId::none;  // how the horizon knows waves 1 and up
};

/// A cache of fixed-address slots in one fast tier: decides which experts are resident, loads ahead what the
/// submitted plans will need, and never exceeds its budget. Thread-safe; destroying it while a wave lives breaks a
/// precondition (checked in debug builds). Rules: docs/architecture.md.
class SIDA_API ExpertStore {
 public:
  /// Opens a store over `tier`, which fills slots from `source`'s records.
  /// @return over_budget when the budget holds not even one expert of the largest layer; out_of_memory;
  /// invalid_argument for a source without experts.
  static Result<std::unique_ptr<ExpertStore>> open(ExpertSource const& source, std::unique_ptr<FastTier> tier,
                                                   StoreOptions const& options);
  ~ExpertStore();
  ExpertStore(ExpertStore const&) = delete;
  ExpertStore& operator=(ExpertStore const&) = delete;

  /// Announces future events of one batch, in the order of use: `events[i]` is what event i will probably demand
  /// (any order, duplicates allowed). The store prefetches by next use and keeps what is needed soonest. A hint: a
  /// wrong plan costs time, never correctness. Plans are
  /// expected to be used in the order of their submission; whoever runs several batches layer by layer submits the
  /// events of all of them as one plan, in the order in which they will come. @return invalid_argument for an unknown
  /// id; out_of_memory, and then nothing of the plan is known.
  Result<PlanId> submit_plan(std::span<std::vector<ExpertId> const> events);
  /// Forgets what is left of a plan.
  void drop_plan(PlanId plan) noexcept;

  /// Begins a demand event. `experts`: distinct, in any order; may be empty.
  /// @return invalid_argument for an unknown or repeated id; out_of_memory.
  Result<DemandEvent> begin_event(std::span<ExpertId const> experts, PlanPosition position = {});

  /// Leases `experts` (distinct, at most `slots()`) as one event of one wave. @return as begin_event, next_wave, and
  /// over_budget when there are more experts than slots.
  Result<Wave> acquire(std::span<ExpertId const> experts, StreamRef reader, PlanPosition position = {});

  /// Every blocked and every later acquire returns `cancelled`; waves that are out stay valid.
  void cancel() noexcept;

  /// Empties the store, forgets all plans and zeroes the statistics; waits for fills under way.
  /// @return invalid_argument when a wave is alive or an acquire is under way, or begins while it waits; plans may be
  /// forgotten by then. out_of_memory.
  Status reset();

  std::uint32_t slots() const noexcept;
  std::size_t slot_bytes() const noexcept;
  std::uint32_t expert_count() const noexcept;
  Tier space() const noexcept;
  StoreStats stats() const;

 private:
  friend class Wave;
  friend class DemandEvent;
  struct Impl;
  explicit ExpertStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sida::inline v0
