#include "store/slot_table.hpp"

#include <algorithm>
#include <cassert>

namespace sida::inline v0 {

SlotTable::SlotTable(std::uint32_t experts, std::uint32_t slots, std::size_t slot_bytes,
                     std::unique_ptr<EvictionPolicy> policy)
    : entries_(experts), occupants_(slots), slots_(slots), slot_bytes_(slot_bytes), policy_(std::move(policy)) {
  free_.reserve(slots);
  for (std::uint32_t slot = slots; slot-- > 0;) free_.push_back(SlotId{slot});  // the lowest is given out first
}

std::size_t SlotTable::count_evictable() const noexcept {
  return static_cast<std::size_t>(std::count_if(
      occupants_.begin(), occupants_.end(), [&](auto const& occupant) { return occupant && evictable(*occupant); }));
}

std::vector<ExpertIndex> SlotTable::residents() const {
  std::vector<ExpertIndex> experts;
  experts.reserve(slots_);
  for (auto const& occupant : occupants_) {
    if (occupant) experts.push_back(*occupant);
  }
  std::sort(experts.begin(), experts.end());
  return experts;
}

std::vector<ExpertIndex> SlotTable::evictable_experts() const {
  auto experts = residents();
  std::erase_if(experts, [&](ExpertIndex expert) { return !evictable(expert); });
  return experts;
}

std::vector<ExpertIndex> SlotTable::victims_after(std::uint64_t position, Horizon const& horizon) const {
  auto experts = evictable_experts();
  std::erase_if(experts, [&](ExpertIndex expert) { return horizon.next_use(expert) <= position; });
  return experts;
}

void SlotTable::pin(ExpertIndex expert) noexcept {
  if (entries_[expert].pins++ == 0) ++pinned_;
}

void SlotTable::unpin(ExpertIndex expert) {
  Entry& entry = entries_[expert];
  assert(entry.pins > 0);
  if (--entry.pins > 0) return;
  --pinned_;
  if (entry.state == State::failed) free_slot(expert);
}

FillRequest SlotTable::assign(ExpertIndex expert, ExpertId id, Purpose purpose) {
  assert(absent(expert) && !free_.empty());
  policy_->insert(expert);
  Entry& entry = entries_[expert];
  entry.slot = free_.back();
  free_.pop_back();
  occupants_[static_cast<std::uint32_t>(entry.slot)] = expert;
  entry.state = State::filling;
  entry.filled_for = purpose;
  entry.unused_for = purpose;
  ++filling_;
  if (purpose != Purpose::demand) ++ahead_in_flight_;
  if (purpose == Purpose::prefetch) ++stats_.prefetches;
  ++stats_.loads;
  stats_.bytes_loaded += slot_bytes_;
  std::uint64_t const resident_bytes = (slots_ - free_.size()) * slot_bytes_;
  stats_.peak_resident_bytes = std::max(stats_.peak_resident_bytes, resident_bytes);
  // The expert in the lower half makes the way back from a ticket trivial; the upper half makes it unique.
  entry.ticket = FillTicket{std::uint64_t{++sequence_} << 32 | expert};
  return {entry.ticket, id, entry.slot, purpose == Purpose::demand ? FillUrgency::demand : FillUrgency::prefetch};
}

void SlotTable::evict(ExpertIndex expert) {
  assert(evictable(expert));
  ++stats_.evictions;
  if (entries_[expert].unused_for == Purpose::prefetch) ++stats_.prefetches_wasted;
  free_slot(expert);
}

void SlotTable::free_slot(ExpertIndex expert) {
  Entry& entry = entries_[expert];
  occupants_[static_cast<std::uint32_t>(entry.slot)].reset();
  free_.push_back(entry.slot);
  entry.state = State::absent;
  entry.unused_for = Purpose::demand;
  entry.error.reset();
  policy_->erase(expert);
}

ExpertIndex SlotTable::filled(FillTicket ticket, Status status) {
  auto const expert = static_cast<ExpertIndex>(static_cast<std::uint64_t>(ticket));
  Entry& entry = entries_[expert];
  assert(entry.state == State::filling);
  --filling_;
  if (entry.filled_for != Purpose::demand) --ahead_in_flight_;
  if (status) {
    entry.state = State::ready;
    return expert;
  }
  ++stats_.failed_loads;
  entry.state = State::failed;
  entry.error = std::move(status).error();
  if (entry.unused_for == Purpose::prefetch) ++stats_.prefetches_wasted;
  entry.prefetch_failed = entry.filled_for != Purpose::demand;
  if (entry.pins == 0) free_slot(expert);
  return expert;
}

void SlotTable::touch(std::span<ExpertIndex const> experts) {
  ++stats_.events;
  for (ExpertIndex const expert : experts) {
    Entry& entry = entries_[expert];
    entry.prefetch_failed = false;
    if (is_miss(expert)) {
      ++stats_.misses;
    } else {
      ++stats_.hits;
      if (entry.state == State::filling) ++stats_.late_hits;
      if (entry.unused_for == Purpose::prefetch) ++stats_.prefetches_used;
    }
    entry.unused_for = Purpose::demand;
  }
  policy_->touch(experts);
}

}  // namespace sida::inline v0
