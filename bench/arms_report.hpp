#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/arms.hpp"
#include "bench/bar_chart.hpp"

namespace sida::bench {

/// All that was measured, and under what.
struct Experiment {
  ArmSettings settings;
  std::string model;
  std::string slow;             ///< the word or number given
  DiskSpeed disk;               ///< bytes_per_s is 0 when the source is not slowed
  double fill_bytes_per_s = 0;  ///< at which an empty store was filled
  std::uint64_t rows = 0;
  std::uint64_t slot_bytes = 0;
  std::vector<std::uint32_t> slots;       ///< by arm
  std::vector<std::vector<ArmRun>> runs;  ///< by arm and round

  std::size_t rounds() const noexcept { return runs.front().size(); }
  /// What the bound divides by: the slowed disk's bandwidth, else what was measured.
  double bytes_per_s() const noexcept { return disk.bytes_per_s > 0 ? disk.bytes_per_s : fill_bytes_per_s; }
};

/// A median over rounds, and the extremes.
struct Spread {
  double median = 0;
  double least = 0;
  double most = 0;

  static Spread of(std::vector<double> values);
};

/// One arm over all rounds; figures without a spread are medians.
struct ArmSummary {
  std::string name;
  Spread wall_s;
  Spread to_all_resident;  ///< wall time as a multiple of all resident's in the same round
  double bytes_read = 0;
  double min_bytes = 0;  ///< Belady's
  double hits = 0;
  double late_hits = 0;
  double misses = 0;
  double stall_s = 0;
  double compute_s = 0;  ///< wall - stall
  double hash_s = 0;     ///< on the hash-building thread
  double queue_s = 0;    ///< the inference thread waited for plans; part of `compute_s`
  double bound_s = 0;    ///< max(all resident, MIN bytes / bandwidth)
  std::string logits_sha256;
};

std::vector<ArmSummary> summarise(Experiment const& experiment);
/// Wall time of one arm as a multiple of another's in the same round.
Spread wall_ratio(Experiment const& experiment, ArmPlace arm, ArmPlace reference);
/// Whether every run of every arm gave the same logits.
bool same_answers(Experiment const& experiment);

std::string make_table(Experiment const& experiment);
std::string make_json(Experiment const& experiment);
BarChart make_chart(Experiment const& experiment);

}  // namespace sida::bench
