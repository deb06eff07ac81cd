#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bench/slow_source.hpp"
#include "bench/trace.hpp"
#include "cli/command.hpp"
#include "cli/options.hpp"
#include "cli/run_hash.hpp"
#include "cli/run_input.hpp"
#include "cli/run_prefetch.hpp"
#include "cli/run_setup.hpp"
#include "sida/core/result.hpp"
#include "sida/io/expert_source.hpp"
#include "sida/predict/any_predictor.hpp"
#include "sida/runtime/pipeline.hpp"
#include "sida/store/store_stats.hpp"

namespace sida::bench {

/// How many experts an arm may hold.
enum class ArmBudget : std::uint8_t { all, one_slot, given };

/// A way to serve the same model.
struct ArmSpec {
  std::string name;
  ArmBudget budget = ArmBudget::given;
  PolicyKind policy = PolicyKind::lru;
  cli::Prefetch prefetch = cli::Prefetch::none;
  ReadPath read_path = ReadPath::pread;
};

/// The arms, in the order in which they are reported.
std::span<ArmSpec const> arm_specs();
/// Their places among `arm_specs`.
enum ArmPlace : std::size_t { all_resident, one_slot, fifo, lru, lfru, by_hash, by_oracle, through_mmap };

/// What the arms have in common.
struct ArmSettings {
  std::string container;                        ///< FILE.sida
  std::shared_ptr<ExpertSource const> records;  ///< in place of the container's, where its reads aren't what counts
  std::string predictor;
  std::string data;
  cli::Budget budget;
  std::uint64_t rows = 0;  ///< the first so many; 0: all
  std::uint64_t lookahead = 8;
  std::uint64_t prefetch_depth = StoreOptions{}.prefetch_depth;
  double likely = cli::HashOptions{}.likely;
  std::uint64_t threads = 1;
};

/// One measured run of one arm.
struct ArmRun {
  double wall_s = 0;
  StoreStats store;
  PipelineStats pipeline;
  std::string logits_sha256;
  std::uint64_t min_loads = 0;

  double stall_s() const noexcept { return static_cast<double>(store.stall_ns) * 1e-9; }
  double compute_s() const noexcept { return wall_s - stall_s(); }
};

/// One arm: a model that is served its way. Each run begins with an empty store; with everything resident, with a full
/// one.
class Arm {
 public:
  /// The experts are read from `disk`. @return what ServedModel::open and load_hash return.
  static Result<std::unique_ptr<Arm>> open(ArmSpec const& spec, ArmSettings const& settings,
                                           std::shared_ptr<SlowDisk> disk);

  /// Not measured: gives the oracle its knowledge of `input`, and what is to be resident its place.
  Status prepare(cli::InputRows const& input, cli::Session const& session);
  /// Answers all of `input`, one row at a time.
  Result<ArmRun> run(cli::InputRows const& input, cli::Session const& session);
  /// Reads every expert into an empty store that has room for it. @return seconds.
  Result<double> fill();
  /// The same as `run`, watched.
  Result<TracedRun> run_traced(cli::InputRows const& input, cli::Session const& session);

  ArmSpec const& spec() const noexcept { return spec_; }
  cli::ServedModel& served() noexcept { return *served_; }

 private:
  Arm(ArmSpec spec, ArmSettings settings) : spec_(std::move(spec)), settings_(std::move(settings)) {}
  PipelineOptions pipeline_options(PipelineStats& stats) const;

  ArmSpec spec_;
  ArmSettings settings_;
  std::shared_ptr<Trace> trace_ = std::make_shared<Trace>();
  std::unique_ptr<cli::ServedModel> served_;
  AnyPredictor predictor_;
};

/// The rows that all arms answer. @return what read_inputs returns; invalid_argument when there are none.
Result<cli::InputRows> read_rows(ArmSettings const& settings, cli::ServedModel const& served,
                                 cli::Session const& session);

}  // namespace sida::bench
