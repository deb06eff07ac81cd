#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/report.hpp"
#include "cli/run_hash.hpp"
#include "cli/run_setup.hpp"
#include "sida/io/file.hpp"
#include "sida/predict/hit_rate.hpp"
#include "sida/runtime/pipeline.hpp"
#include "sida/store/store_stats.hpp"

namespace sida::cli {

/// What happened in one measured run.
struct RunAccount {
  std::uint64_t sequences = 0;
  std::uint64_t tokens = 0;
  std::vector<double> batch_ms;  ///< from a batch's first step to its answer
  double wall_s = 0;
  std::optional<double> accuracy;
  std::string logits_sha256;
  StoreStats store;
  ReadStats reads;
  PipelineStats pipeline;
  HitRates hit_rates;  ///< of plans that name experts per token, in exact mode
  /// The least that any schedule could have loaded, starting empty; none for a run that was warmed up.
  std::optional<std::uint64_t> min_loads;
};

/// The settings that a run is reported under.
struct RunSettings {
  ServeOptions serve;
  RunMode mode = RunMode::exact;
  std::string prefetch;
  std::string predictor;  ///< file of the hash function; empty where there is none
  HashOptions hash;
  std::uint64_t lookahead = 0;
  std::uint64_t batch = 1;
  bool warmed_up = false;
};

/// What was read between two snapshots.
ReadStats operator-(ReadStats const& later, ReadStats const& earlier) noexcept;

/// Most memory that this process has held, in bytes; 0 where the system doesn't say.
std::uint64_t peak_rss_bytes();

/// The value at `share` of the sorted values (nearest rank); 0 without values.
double percentile(std::vector<double> values, double share);

Report make_report(RunAccount const& account, RunSettings const& settings, ServedModel const& served);
std::string make_summary(RunAccount const& account, RunSettings const& settings, ServedModel const& served);

}  // namespace sida::cli
