#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "sida/core/expert_id.hpp"
#include "sida/core/result.hpp"
#include "sida/policy/eviction_policy.hpp"
#include "sida/store/fast_tier.hpp"
#include "sida/store/store_stats.hpp"

namespace sida::inline v0 {

/// Which expert is in which slot, in what state, held by how many. The state machine of residency, without
/// locks, waiting or I/O:
///
///   absent ──assign──► filling ──filled(ok)──► ready ──evict──► absent
///                         └─────filled(error)─► failed (while pinned) ──last unpin──► absent
///
/// Keeps the eviction policy and the statistics of residency in step.
class SlotTable {
 public:
  enum class State : std::uint8_t { absent, filling, ready, failed };
  /// Why an expert is loaded. A later wave of an event that has begun is demanded already: loaded ahead or not, it
  /// counts as a miss.
  enum class Purpose : std::uint8_t { demand, later_wave, prefetch };

  SlotTable(std::uint32_t experts, std::uint32_t slots, std::size_t slot_bytes, std::unique_ptr<EvictionPolicy> policy);

  State state(ExpertIndex expert) const noexcept { return entries_[expert].state; }
  bool absent(ExpertIndex expert) const noexcept { return state(expert) == State::absent; }
  /// May be evicted now.
  bool evictable(ExpertIndex expert) const noexcept {
    return entries_[expert].state == State::ready && entries_[expert].pins == 0;
  }
  /// A prefetch of it failed; it is not prefetched again until it was demanded.
  bool prefetch_failed(ExpertIndex expert) const noexcept { return entries_[expert].prefetch_failed; }
  SlotId slot(ExpertIndex expert) const noexcept { return entries_[expert].slot; }
  /// The fill under way of an expert that nobody demanded when it began.
  std::optional<FillTicket> filling_ahead(ExpertIndex expert) const noexcept {
    Entry const& entry = entries_[expert];
    bool const is_ahead = entry.state == State::filling && entry.filled_for != Purpose::demand;
    return is_ahead ? std::optional(entry.ticket) : std::nullopt;
  }
  /// Why the fill failed. Precondition: state is failed.
  Error const& error(ExpertIndex expert) const noexcept { return *entries_[expert].error; }

  std::uint32_t experts() const noexcept { return static_cast<std::uint32_t>(entries_.size()); }
  std::uint32_t slots() const noexcept { return slots_; }
  std::size_t free_slots() const noexcept { return free_.size(); }
  std::uint32_t filling() const noexcept { return filling_; }
  /// Fills under way that no acquire waits for: prefetches and later waves.
  std::uint32_t ahead_in_flight() const noexcept { return ahead_in_flight_; }
  /// Loaded for a demand, and that demand is still to come or has just come: it counts as a miss.
  bool is_miss(ExpertIndex expert) const noexcept {
    return absent(expert) || entries_[expert].unused_for == Purpose::later_wave;
  }
  std::uint32_t pinned() const noexcept { return pinned_; }
  std::size_t count_evictable() const noexcept;
  /// Experts that have a slot, ascending.
  std::vector<ExpertIndex> residents() const;
  /// Residents that may be evicted, ascending.
  std::vector<ExpertIndex> evictable_experts() const;
  /// Those of them whose next planned use comes after `position`.
  std::vector<ExpertIndex> victims_after(std::uint64_t position, Horizon const& horizon) const;

  void pin(ExpertIndex expert) noexcept;
  void unpin(ExpertIndex expert);

  /// Gives a free slot to an absent expert. Precondition: there is one. @return what to submit.
  FillRequest assign(ExpertIndex expert, ExpertId id, Purpose purpose);
  /// Takes the slot of an evictable expert.
  void evict(ExpertIndex expert);
  /// The end of a fill. @return the expert.
  ExpertIndex filled(FillTicket ticket, Status status);
  /// A demand touches these experts: counts, and tells the policy.
  void touch(std::span<ExpertIndex const> experts);

  EvictionPolicy const& policy() const noexcept { return *policy_; }
  StoreStats& stats() noexcept { return stats_; }

 private:
  struct Entry {
    State state = State::absent;
    bool prefetch_failed = false;
    Purpose filled_for = Purpose::demand;  // of the fill under way
    Purpose unused_for = Purpose::demand;  // loaded ahead for this and not demanded since; else `demand`
    SlotId slot{};
    std::uint32_t pins = 0;
    FillTicket ticket{};         // of the fill under way
    std::optional<Error> error;  // in place: a failure must not need memory
  };
  void free_slot(ExpertIndex expert);

  std::vector<Entry> entries_;                         // per expert
  std::vector<std::optional<ExpertIndex>> occupants_;  // per slot
  std::vector<SlotId> free_;
  std::uint32_t slots_;
  std::size_t slot_bytes_;
  std::uint32_t filling_ = 0;
  std::uint32_t ahead_in_flight_ = 0;
  std::uint32_t pinned_ = 0;    // experts with pins
  std::uint32_t sequence_ = 0;  // of fills; makes tickets unique
  std::unique_ptr<EvictionPolicy> policy_;
  StoreStats stats_;
};

}  // namespace sida::inline v0
