#pragma once

#include <cstdint>

namespace sida::inline v0 {

/// What a store did. Counters are monotonic; subtract two snapshots for an interval. Bytes are slot bytes.
struct StoreStats {
  std::uint64_t events = 0;     ///< demand events; a wave of a larger event counts as one
  std::uint64_t hits = 0;       ///< demanded experts that had a slot before their event, filled or being filled
  std::uint64_t late_hits = 0;  ///< the part of `hits` whose fill was still under way
  std::uint64_t misses = 0;     ///< demanded experts whose event started their load
  std::uint64_t loads = 0;      ///< fills started, by demand and by prefetch
  std::uint64_t bytes_loaded = 0;
  std::uint64_t failed_loads = 0;
  std::uint64_t evictions = 0;
  std::uint64_t prefetches = 0;           ///< the part of `loads` that a plan started
  std::uint64_t prefetches_used = 0;      ///< demanded before they were evicted
  std::uint64_t prefetches_wasted = 0;    ///< evicted, or failed, before any demand
  std::uint64_t planned_events = 0;       ///< events that a plan had announced
  std::uint64_t mispredicted_loads = 0;   ///< misses of planned events whose plan did not name the expert
  std::uint64_t stall_ns = 0;             ///< time that acquires waited, summed over threads
  std::uint64_t peak_resident_bytes = 0;  ///< most slot bytes resident or on their way; a level, not a counter

  friend StoreStats operator-(StoreStats later, StoreStats const& earlier) noexcept {
    later.events -= earlier.events;
    later.hits -= earlier.hits;
    later.late_hits -= earlier.late_hits;
    later.misses -= earlier.misses;
    later.loads -= earlier.loads;
    later.bytes_loaded -= earlier.bytes_loaded;
    later.failed_loads -= earlier.failed_loads;
    later.evictions -= earlier.evictions;
    later.prefetches -= earlier.prefetches;
    later.prefetches_used -= earlier.prefetches_used;
    later.prefetches_wasted -= earlier.prefetches_wasted;
    later.planned_events -= earlier.planned_events;
    later.mispredicted_loads -= earlier.mispredicted_loads;
    later.stall_ns -= earlier.stall_ns;
    return later;  // peak_resident_bytes: the later level
  }
};

}  // namespace sida::inline v0
